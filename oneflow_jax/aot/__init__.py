"""`--mode=compile`: what a run would need and take on TPUs that are not here, from XLA itself."""
