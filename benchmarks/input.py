"""Speed of preparing own data, and of reading it beside the training step: `benchmarks.input`.

    python -m benchmarks.input

Documents of a picture and some words are written, prepared with one process and with two, and read
by the pipeline; the step of configs/own.py on such batches runs in the same rounds.
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
from configs import common, own
from oneflow_jax.build import system as system_lib
from oneflow_jax.data.custom import prepare
from oneflow_jax.data.custom.reader import Settings
from oneflow_jax.runtime import host, sharding
from oneflow_jax.training import loop, train_state

WORKERS = (1, 2)
DRAWN = 32
"""Batches drawn in a round: many more than are ready beforehand."""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints, and returns what --json writes."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--documents", type=int, default=2_000)
    flags.add_argument("--side", type=int, default=400, help="height and width of a picture")
    flags.add_argument("--rounds", type=int, default=15)
    flags.add_argument("--smoke", action="store_true", help="few, small, one round")
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    given = flags.parse_args(argv)
    if given.smoke:
        given.documents, given.side, given.rounds = 30, 20, 1
    with tempfile.TemporaryDirectory(prefix="input-") as folder:
        top = pathlib.Path(folder)
        size = written(top / "own", given.documents, given.side)
        preparing = {workers: prepared(top, workers, given.documents, size) for workers in WORKERS}
        reading = read(top, given.rounds, smoke=given.smoke)
    results = {
        "machine": host.machine(),
        "documents": given.documents,
        "megabytes": size / 1e6,
        "preparing": preparing,
        "reading": reading,
    }
    for workers, rates in preparing.items():
        rows = [(name, f"{value:.1f}") for name, value in rates.items()]
        report.show(f"preparing, {workers} processes", rows)
    rows = [(name, spread.text(digits=2)) for name, spread in reading.items()]
    report.show("reading and training, median of rounds (min-max)", rows)
    report.keep(given.json, results)
    return results


def written(folder: pathlib.Path, documents: int, side: int) -> int:
    """Writes JSON lines and JPEGs; returns how many bytes."""
    folder.mkdir()
    size = 0
    draws, noise = random.Random(0), np.random.default_rng(0)
    words = ("small", "red", "dog", "sits", "old", "green", "door", "looks", "two", "birds")
    lines = []
    for number in range(documents):
        coarse = PIL.Image.fromarray(noise.integers(0, 256, (12, 12, 3), np.uint8))
        picture = coarse.resize((side, side), PIL.Image.Resampling.BICUBIC)
        path = folder / f"{number}.jpg"
        picture.save(path, quality=90)
        size += path.stat().st_size
        text = " ".join(draws.choices(words, k=20))
        parts = [{"text": f"{number} {text}"}, {"image": path.name}]
        lines.append(json.dumps({"document": parts}))
    (folder / "documents.jsonl").write_text("\n".join(lines))
    return size + (folder / "documents.jsonl").stat().st_size


def prepared(top: pathlib.Path, workers: int, documents: int, size: int) -> dict[str, float]:
    """Rates of a preparation, with the start of its processes."""
    settings = Settings(path=str(top / "own"), pixels=32)
    began = time.perf_counter()
    prepare.prepared(settings, str(top / f"data-{workers}"), workers)
    seconds = time.perf_counter() - began
    return {
        "documents a second": documents / seconds,
        "megabytes a second": size / 1e6 / seconds,
        "seconds": seconds,
    }


def read(top: pathlib.Path, rounds: int, *, smoke: bool) -> dict[str, timing.Spread]:
    """Seconds of a batch from the pipeline, never seen before, and of a step; and their ratio."""
    config = own.get_config()
    config.source.path = str(top / "own")
    config.data.dir = str(top / "data-1")
    config.data.cache = 0
    if smoke:
        config.model.update(common.size(layers=1, width=32, heads=2))
        config.batch = 8
    folder = epath.Path(top / "run")
    folder.mkdir()
    system = system_lib.system(config.lock(), folder)
    with sharding.use(system.mesh):
        batches = iter(system.batches())
        canvas = next(batches)
        state, step = train_state.initial(system), loop.compiled(system)

        def draw() -> object:
            return [next(batches) for _ in range(DRAWN)][-1]

        def learn() -> object:
            nonlocal state
            state, metrics = step(state, canvas)
            return metrics

        seconds = timing.interleaved({"draw": draw, "step": learn}, rounds)
        batches.close()
    seconds["batch"] = [each / DRAWN for each in seconds["draw"]]
    pairs = zip(seconds["batch"], seconds["step"], strict=True)
    return {
        "a batch, ms": timing.spread(1e3 * each for each in seconds["batch"]),
        "a step, ms": timing.spread(1e3 * each for each in seconds["step"]),
        "a step by a batch": timing.spread(step / batch for batch, step in pairs),
    }


if __name__ == "__main__":
    report.run(main)
