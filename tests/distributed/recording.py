"""`oneflow_jax.main` that notes what it reads: `python -m tests.distributed.recording FLAGS`.

Leaves besides the run, for each process, which documents it has read to train on:
`<workdir>/read-<number of the process>.json`.
"""

import json

import jax

from oneflow_jax import main
from oneflow_jax.data import toy
from oneflow_jax.training import loop


def record_reads(train_run):
    """Trains as `train_run` does, and notes what is read meanwhile."""
    document = toy.Toy.__getitem__

    def noted(system, folder, preview):
        read = set()

        def noticed(source, index):
            if source.split == "train":
                read.add(int(index))
            return document(source, index)

        toy.Toy.__getitem__ = noticed
        train_run(system, folder, preview)
        toy.Toy.__getitem__ = document
        (folder / f"read-{jax.process_index()}.json").write_text(json.dumps(sorted(read)))

    return noted


if __name__ == "__main__":
    loop.run = record_reads(loop.run)
    main.main()
