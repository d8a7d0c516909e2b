"""Corruption processes, time sampling and losses, written for one row of slots."""
