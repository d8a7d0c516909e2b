"""Benchmarks of speed, memory and quality: one module and one process per benchmark."""
