"""Networks that others trained, for measuring pictures; their weights come in pip packages."""
