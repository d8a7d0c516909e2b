"""Text and images generated at the same time, by one flow from corrupted to clean documents."""

__version__ = "0.1.0"
