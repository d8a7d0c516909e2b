"""Convolutional autoencoders, which convert images to small grids of latents or codes and back."""
