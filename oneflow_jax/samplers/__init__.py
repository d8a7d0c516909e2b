"""Samplers: generation of documents with a trained network."""
