"""Families of models: how each corrupts, scores and samples a canvas."""
