"""Convolutional autoencoders, which turn images into small grids of latents or codes, and back."""
