"""The mathematics of corruption and loss, written for one row."""
