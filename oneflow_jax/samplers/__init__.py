"""Samplers: algorithms that generate documents with a trained network."""
