"""`oneflow_jax.main` that trains and does no more, and tells what this process has read.

`python -m tests.processes.training FLAGS` leaves besides the run the numbers of the documents that
the process has read to train on: `<workdir>/read-<number of the process>.json`.
"""

import json

import jax

from oneflow_jax import main, train
from oneflow_jax.data import toy


def noting(run):
    """Trains as `run` does, and notes what is read."""

    def noted(system, folder, preview):
        read, document = set(), toy.Toy.__getitem__

        def noticed(source, index):
            if source.split == "train":
                read.add(int(index))
            return document(source, index)

        toy.Toy.__getitem__ = noticed
        run(system, folder, preview)
        (folder / f"read-{jax.process_index()}.json").write_text(json.dumps(sorted(read)))

    return noted


if __name__ == "__main__":
    train.run = noting(train.run)
    main.evaluate.run = lambda system, folder: {}
    main.sample.run = lambda system, folder, prompts, revise: folder
    main.main()
