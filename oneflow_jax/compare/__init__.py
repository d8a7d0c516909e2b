"""Comparison of paradigms: trained with equal FLOPs on the same documents, shown side by side."""
