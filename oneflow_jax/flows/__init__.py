"""Corruption processes and losses, written for one row."""
