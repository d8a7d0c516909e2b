"""An HTTP server for trained models: `oneflow serve`."""
