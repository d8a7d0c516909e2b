"""Training autoencoders on pictures, and how well they bring them back."""
