"""Codecs, which convert images to sequences of patches, latents or codes, and back."""
