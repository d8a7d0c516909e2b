"""What networks cost, counted on paper: FLOPs, bytes, and seconds on chips that are not here."""
