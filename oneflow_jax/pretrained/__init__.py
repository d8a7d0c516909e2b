"""Pretrained networks for metrics; their weights come from packages or from the user."""
