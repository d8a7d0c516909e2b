"""Paradigms trained at equal FLOPs on the same documents, measured and shown side by side."""
