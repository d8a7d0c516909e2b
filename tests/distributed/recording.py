"""Trains with `oneflow_jax.main` and records which documents are read.

Run as `python -m tests.distributed.recording FLAGS`. Each process writes the indices of the
training documents that it read to `<workdir>/read-<process index>.json`.
"""

import json

import jax

from oneflow_jax import main
from oneflow_jax.data import toy
from oneflow_jax.training import loop


def record_reads(train_run):
    """Return a `train_run` that also records the training documents that are read."""
    document = toy.Toy.__getitem__

    def train_and_record(system, folder, preview):
        read = set()

        def record_index(source, index):
            if source.split == "train":
                read.add(int(index))
            return document(source, index)

        toy.Toy.__getitem__ = record_index
        train_run(system, folder, preview)
        toy.Toy.__getitem__ = document
        (folder / f"read-{jax.process_index()}.json").write_text(json.dumps(sorted(read)))

    return train_and_record


if __name__ == "__main__":
    loop.run = record_reads(loop.run)
    main.main()
