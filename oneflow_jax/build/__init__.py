"""Builders of typed objects from a configuration; no other package reads a configuration."""
