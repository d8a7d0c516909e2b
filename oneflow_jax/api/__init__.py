"""The Python interface: `oneflow_jax` itself names what is public of it. See docs/python.md."""
