"""Measurements of speed and memory, each in one process with this machine's own limits."""
