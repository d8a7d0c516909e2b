"""Metrics of generated documents, by data set."""
