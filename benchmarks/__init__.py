"""Benchmarks of speed, memory and quality. Each runs in a single process."""
