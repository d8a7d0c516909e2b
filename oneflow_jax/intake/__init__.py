"""Own data made ready: read by processes that may die of it, counted, and told of."""
