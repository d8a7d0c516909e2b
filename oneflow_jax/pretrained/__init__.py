"""Pretrained networks for metrics, with weights from packages or from the user's files."""
