"""The command-line interface: flags, commands, help and names of configurations.

No module here imports JAX, because that import takes seconds. So `oneflow --help` and the error
about a mistyped command appear at once. `oneflow_jax.main` runs the commands.
"""
