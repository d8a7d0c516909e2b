"""Builders of typed objects from a configuration; models and training never read one."""
