"""Configurations: one file for each thing to train. Import them as `oneflow_jax.configs`."""
