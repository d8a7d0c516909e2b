"""Speed of preparing custom data, and of the input pipeline relative to the training step.

    python -m benchmarks.input

The benchmark writes documents of one image and some text, and prepares them with one and with two
processes. Then it alternates between reading a batch from the input pipeline and running the
training step of configs/own.py on a batch.
"""

import argparse
import json
import pathlib
import random
import tempfile
import time
from typing import Any

import numpy as np
import PIL.Image
from etils import epath

from benchmarks import report, timing
from oneflow_jax.build import system as system_lib
from oneflow_jax.configs import common, own
from oneflow_jax.data.custom import prepare
from oneflow_jax.data.custom.reader import Settings
from oneflow_jax.runtime import host, sharding
from oneflow_jax.training import loop, train_state

WORKER_COUNTS = (1, 2)
BATCHES_PER_ROUND = 32
"""Batches read in a round: many more than are prefetched, so prefetching cannot hide their cost."""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and return the results that --json writes."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--documents", type=int, default=2_000)
    flags.add_argument("--side", type=int, default=400, help="height and width of an image")
    flags.add_argument("--rounds", type=int, default=15)
    flags.add_argument("--smoke", action="store_true", help="tiny sizes, one round")
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    options = flags.parse_args(argv)
    if options.smoke:
        options.documents, options.side, options.rounds = 30, 20, 1
    with tempfile.TemporaryDirectory(prefix="input-") as folder:
        top = pathlib.Path(folder)
        size = write_documents(top / "own", options.documents, options.side)
        preparing = {
            workers: measure_preparation(top, workers, options.documents, size)
            for workers in WORKER_COUNTS
        }
        reading = measure_reading(top, options.rounds, smoke=options.smoke)
    results = {
        "machine": host.machine_info(),
        "documents": options.documents,
        "megabytes": size / 1e6,
        "preparing": preparing,
        "reading": reading,
    }
    for workers, rates in preparing.items():
        rows = [(name, f"{value:.1f}") for name, value in rates.items()]
        report.print_table(f"preparation of the data, {workers} processes", rows)
    rows = [(name, spread.format(digits=2)) for name, spread in reading.items()]
    report.print_table("reading and training, median of rounds (min-max)", rows)
    report.save_json(options.json, results)
    return results


def write_documents(folder: pathlib.Path, num_documents: int, image_size: int) -> int:
    """Write JSON lines and JPEGs, and return their total size in bytes."""
    folder.mkdir()
    size = 0
    draws, noise = random.Random(0), np.random.default_rng(0)
    words = ("small", "red", "dog", "sits", "old", "green", "door", "looks", "two", "birds")
    lines = []
    for number in range(num_documents):
        coarse = PIL.Image.fromarray(noise.integers(0, 256, (12, 12, 3), np.uint8))
        picture = coarse.resize((image_size, image_size), PIL.Image.Resampling.BICUBIC)
        path = folder / f"{number}.jpg"
        picture.save(path, quality=90)
        size += path.stat().st_size
        text = " ".join(draws.choices(words, k=20))
        parts = [{"text": f"{number} {text}"}, {"image": path.name}]
        lines.append(json.dumps({"document": parts}))
    (folder / "documents.jsonl").write_text("\n".join(lines))
    return size + (folder / "documents.jsonl").stat().st_size


def measure_preparation(
    root: pathlib.Path, num_workers: int, num_documents: int, num_bytes: int
) -> dict[str, float]:
    """Measure the speed of preparing the data once, including the start of the processes."""
    settings = Settings(path=str(root / "own"), pixels=32)
    began = time.perf_counter()
    prepare.prepare(settings, str(root / f"data-{num_workers}"), num_workers)
    seconds = time.perf_counter() - began
    return {
        "documents a second": num_documents / seconds,
        "megabytes a second": num_bytes / 1e6 / seconds,
        "seconds": seconds,
    }


def measure_reading(root: pathlib.Path, rounds: int, *, smoke: bool) -> dict[str, timing.Quantiles]:
    """Measure the seconds of reading a batch and of a training step, and their ratio."""
    config = own.get_config()
    config.source.path = str(root / "own")
    config.data.dir = str(root / "data-1")
    config.data.cache_size = 0
    if smoke:
        config.model.update(common.transformer_config(layers=1, width=32, heads=2))
        config.batch_size = 8
    folder = epath.Path(root / "run")
    folder.mkdir()
    system = system_lib.system(config.lock(), folder)
    with sharding.mesh_context(system.mesh):
        batches = iter(system.train_batches())
        canvas = next(batches)
        state, step = train_state.init_sharded(system), loop.jit_train_step(system)

        def draw() -> object:
            return [next(batches) for _ in range(BATCHES_PER_ROUND)][-1]

        def learn() -> object:
            nonlocal state
            state, metrics = step(state, canvas)
            return metrics

        seconds = timing.time_interleaved({"draw": draw, "step": learn}, rounds)
        batches.close()
    seconds["batch"] = [each / BATCHES_PER_ROUND for each in seconds["draw"]]
    pairs = zip(seconds["batch"], seconds["step"], strict=True)
    return {
        "a batch, ms": timing.summarize(1e3 * each for each in seconds["batch"]),
        "a step, ms": timing.summarize(1e3 * each for each in seconds["step"]),
        "a step by a batch": timing.summarize(step / batch for batch, step in pairs),
    }


if __name__ == "__main__":
    report.run_main(main)
