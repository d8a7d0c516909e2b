"""Services for a run's processes: start-up, preemption, storage, run folders, logs and the mesh."""
