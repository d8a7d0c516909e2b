"""Builders that turn a configuration into typed objects; no other package reads a configuration."""
