"""Configurations of training runs. Import them as `oneflow_jax.configs`."""
