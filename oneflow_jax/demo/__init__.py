"""A page on this machine to write documents with gaps, and to watch them form: `make demo`."""
