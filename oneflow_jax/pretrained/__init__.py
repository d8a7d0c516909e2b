"""Pretrained networks for metrics, and language models to start from, read from files."""
