"""Configurations: one file for each thing to train."""
