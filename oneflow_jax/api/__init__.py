"""Python interface; its public names are exported by `oneflow_jax`. See docs/python.md."""
