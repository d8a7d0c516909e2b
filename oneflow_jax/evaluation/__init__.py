"""Figures of merit of generated documents, by data set."""
