"""Codecs, which turn images into rows of patches, latents or codes, and back."""
