"""Preparation of own data on many machines, by Apache Beam (docs/data_at_scale.md)."""
