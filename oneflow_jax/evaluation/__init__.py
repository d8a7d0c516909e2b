"""Metrics of generated documents, and evaluation tasks for each data set."""
