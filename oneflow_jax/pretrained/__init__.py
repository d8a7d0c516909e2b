"""Networks that others trained, to measure with; weights come in packages, or are the user's."""
