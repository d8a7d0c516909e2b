"""Convolutional autoencoders: pictures to small grids of latents or codes, and back."""
