"""Comparison of paradigms that are trained with equal FLOPs on the same documents."""
