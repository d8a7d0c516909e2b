"""Build typed objects from a configuration: the only package that reads one."""
