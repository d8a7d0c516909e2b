"""Preparation of the user's own data, with tolerance for invalid files and content."""
