"""Process-level services: start-up, preemption, storage, run folders, metrics and the mesh."""
