"""Services for the processes of a run: start-up, preemption, storage, folders, logs and mesh."""
