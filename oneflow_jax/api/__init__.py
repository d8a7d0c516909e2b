"""The Python interface. The package `oneflow_jax` exports its public names; see docs/python.md."""
