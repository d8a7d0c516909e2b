"""Requests with random options to one model: programs that are compiled, and seconds per request.

    python -m benchmarks.requests

The benchmark loads the shipped model. It first makes one request of each structure, that is, with
and without guidance, for each number of samples and each length in slots, and then random requests:
to generate images, texts or both, to fill gaps, or to edit a document, each with a random guidance
scale, edit start, number of samples and seed. The table has the number of programs that XLA
compiled or loaded from the disk, the number of sampling programs among them, and quantiles of the
seconds per request. With `--no-warm-up`, the random requests are the first ones. With `--rows`, a
second table has the seconds of a call by its number of documents and images.
"""

import argparse
import collections
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

import oneflow_jax as of
from benchmarks import report
from oneflow_jax.api.model import Model
from oneflow_jax.runtime import host, metric_writer

MAX_IMAGES = 4
"""Maximum number of images of a request; more may not fit the rows of the shipped model. Each
number of images gives rows of another length, 32 to 128 slots."""

ROWS = (1, 2, 4, 8)
"""Numbers of documents of the calls that `--rows` measures."""

CALLS = 15
"""Number of equal calls of which `--rows` takes the minimum."""

MAX_SAMPLES = 4
"""Maximum number of documents of one request."""

TEXTS = ("a picture of a tiger:", "here is a fox:", "a lion", "this is a tree", "a red apple and")

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
"""JAX records this event for each program that it compiles or loads from the disk."""

Request = Callable[[Model], object]


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the results that --json writes."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--workdir", default=of.PRETRAINED, help="run (default: shipped model)")
    flags.add_argument("--requests", type=int, default=500)
    flags.add_argument("--steps", type=int, default=4)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--no-warm-up", action="store_true", help="make random requests only")
    flags.add_argument("--rows", action="store_true", help="also time calls by their documents")
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags = flags.parse_args(argv)
    metric_writer.setup_logging()
    host.configure()
    model = of.load(flags.workdir)
    warm_up = [] if flags.no_warm_up else make_warm_up(flags.steps)
    rng = np.random.default_rng(flags.seed)
    random = [make_request(rng, flags.steps) for _ in range(flags.requests)]
    results = {"machine": host.machine_info()}
    for name, requests in (("warm-up", warm_up), ("random requests", random)):
        if requests:
            results[name] = run_requests(model, requests)
            report.print_table(name, [(key, f"{x:.4g}") for key, x in results[name].items()])
    if flags.rows:
        results["rows"] = measure_rows(model, flags.steps)
        report.print_table("seconds", [(key, f"{x:.3f}") for key, x in results["rows"].items()])
    report.save_json(flags.json, results)
    return results


def run_requests(model: Model, requests: Sequence[Request]) -> dict[str, float]:
    """Make the requests one after another; return compilations and quantiles of the seconds."""
    compiled: collections.Counter[str] = collections.Counter()

    def count(event: str, _: float, **__: object) -> None:
        compiled[event] += 1

    seconds, processor_before = [], time.process_time()
    programs_before = model.num_compilations
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        for request in requests:
            start = time.perf_counter()
            request(model)
            seconds.append(time.perf_counter() - start)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    return {
        "requests": len(requests),
        "compiled programs": compiled[COMPILE_EVENT],
        "sampling programs": model.num_compilations - programs_before,
        "seconds in all": sum(seconds),
        "seconds of the first": seconds[0],
        "processor seconds in all": time.process_time() - processor_before,
        "seconds, p50": float(np.quantile(seconds, 0.5)),
        "seconds, p95": float(np.quantile(seconds, 0.95)),
    }


def measure_rows(model: Model, steps: int) -> dict[str, float]:
    """Return the minimum of the seconds of equal calls without guidance, by rows and images."""
    results = {}
    for images in (1, 2):
        for rows in ROWS:
            request = _generation("<text> <image> " * images, rows, 1.0, 0, steps)
            request(model)  # It compiles the program.
            seconds = []
            for _ in range(CALLS):
                start = time.perf_counter()
                request(model)
                seconds.append(time.perf_counter() - start)
            results[f"{rows} documents of {images} images"] = min(seconds)
    return results


def make_warm_up(steps: int) -> list[Request]:
    """Return one request for each program that the random requests need."""
    numbers = range(1, MAX_IMAGES + 1)
    generations = [
        _generation("<text> <image> " * images, samples, scale, 0, steps)
        for images in numbers
        for scale in (1.0, 2.0)
        for samples in (1, MAX_SAMPLES)
    ]
    return [*generations, *(_edit(images, 0.5, 0, steps) for images in numbers)]


def make_request(rng: np.random.Generator, steps: int) -> Request:
    """Return a random request: a task with random text, length, samples, guidance and seed."""
    images, seed = int(rng.integers(1, MAX_IMAGES + 1)), int(rng.integers(2**31))
    if rng.random() < 0.2:
        return _edit(images, float(rng.uniform(0.1, 0.9)), seed, steps)
    scale = float(rng.uniform(1, 5)) if rng.random() < 0.5 else 1.0
    samples = int(rng.integers(1, MAX_SAMPLES + 1))
    picture = rng.integers(0, 256, (24, 24, 3), np.uint8)
    prompt: list[object] = []
    for _ in range(images):
        word = TEXTS[int(rng.integers(len(TEXTS)))]
        prompt += ([of.TEXT, of.IMAGE], [word, of.IMAGE], [of.TEXT, picture])[rng.integers(3)]
    return _generation(prompt, samples, scale, seed, steps)


def _generation(
    prompt: str | list[object], samples: int, scale: float, seed: int, steps: int
) -> Request:
    options = {"image_guidance_scale": scale, "seed": seed, "steps": steps}
    return lambda model: model.generate(prompt, samples=samples, **options)


def _edit(images: int, start: float, seed: int, steps: int) -> Request:
    picture = np.full((24, 24, 3), 200, np.uint8)
    document = of.Document(["a lion", picture] * images)
    return lambda model: model.edit(document, start=start, seed=seed, steps=steps)


if __name__ == "__main__":
    report.run_main(main)
