"""Pictures as rows of latents, and back."""
