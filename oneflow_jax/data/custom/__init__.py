"""Documents of the user's own: read where they lie, whatever is wrong with them."""
