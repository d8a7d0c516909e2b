"""The command line without its work: flags, commands, help, names of configurations.

Nothing here imports JAX, so that `oneflow --help` and mistyped commands are answered at once.
"""
