"""Data loading: from packages and files to batches of canvases on devices."""
