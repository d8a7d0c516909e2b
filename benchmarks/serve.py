"""Load test of `oneflow serve`: requests per second, latency, wrong answers, memory.

    python -m benchmarks.serve --requests=10000 --clients 32

The benchmark starts a server with the shipped model in a process of its own, and sends requests of
mixed forms: images from text, text from images, both, edits, with and without guidance, with 1 to 4
samples, and a part of them as streams. Each client is a thread that sends its next request when it
has the answer to the last one. Every answer is compared with the documents that `Model.generate` or
`Model.edit` returns alone. A pass over all forms with the largest number of clients compiles the
programs before the measurement.
"""

import argparse
import base64
import contextlib
import http.client
import io
import itertools
import json
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image

import oneflow_jax as of
from benchmarks import report
from oneflow_jax.api.model import Model
from oneflow_jax.runtime import host, metric_writer
from oneflow_jax.serving import events, wire
from oneflow_jax.serving.limits import Limits

TEXTS = ("a picture of a tiger:", "here is a fox:", "a lion", "this is a tree", "a red apple and")

SCALES = (1.0, 1.0, 2.0, 3.0)
"""Image guidance scales of requests; 1 means none."""

Body = dict[str, Any]
"""Body of a request, with its path as `"path"`."""


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the results that --json writes."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--workdir", default=str(of.PRETRAINED), help="run (default: shipped model)")
    flags.add_argument("--requests", type=int, default=1000, help="requests of each measurement")
    flags.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    flags.add_argument("--forms", type=int, default=64, help="number of different requests")
    flags.add_argument("--steps", type=int, default=4)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags = flags.parse_args(argv)
    metric_writer.setup_logging()
    host.configure()
    rng = np.random.default_rng(flags.seed)
    bodies = [make_body(rng, flags.steps) for _ in range(flags.forms)]
    model = of.load(flags.workdir)
    expected = [make_answer(model, body) for body in bodies]
    results: dict[str, object] = {"machine": host.machine_info()}
    with start_server(flags.workdir) as (port, process):
        results["warm-up"] = measure(
            port, process, bodies, expected, flags.forms, max(flags.clients)
        )
        for clients in flags.clients:
            name = f"{clients} clients"
            results[name] = measure(port, process, bodies, expected, flags.requests, clients)
            report.print_table(name, [(key, f"{x:.4g}") for key, x in results[name].items()])
    report.save_json(flags.json, results)
    return results


def make_body(rng: np.random.Generator, steps: int) -> Body:
    """Return a random request: a task with random text, images, samples, guidance and seed."""
    common = {"steps": steps, "seed": int(rng.integers(2**31)), "stream": bool(rng.random() < 0.2)}
    text, images = TEXTS[int(rng.integers(len(TEXTS)))], {"0": _encode_random_image(rng)}
    if rng.random() < 0.2:
        document = [{"text": text}, {"image": images["0"]}]
        start = float(rng.choice([0.3, 0.6]))
        return {"path": "/v1/edit", "document": document, "start": start, **common}
    prompts = (
        "<text> <image>",
        f"{text} <image>",
        "<image:0> <text>",
        f"{text} <image> <text> <image>",
    )
    return {
        "path": "/v1/generate",
        "prompt": prompts[int(rng.integers(len(prompts)))],
        "images": images,
        "samples": int(rng.integers(1, 5)),
        "image_guidance_scale": float(rng.choice(SCALES)),
        **common,
    }


def make_answer(model: Model, body: Body) -> Body:
    """Return the documents that the answer to a request must have, computed alone."""
    body = {name: value for name, value in body.items() if name != "path"}
    if "document" in body:
        edit = wire.EditRequest(**body)
        document = edit.read_document(Limits())
        documents = [model.edit(document, start=edit.start, **edit.sampling_options())]
    else:
        request = wire.GenerateRequest(**body)
        prompt, options = request.read_prompt(Limits()), request.sampling_options()
        documents = model.generate(prompt, samples=request.samples, **options)
    return _comparable(wire.write_done(events.Done(documents, 0, 0.0), []))


@contextlib.contextmanager
def start_server(folder: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Start `oneflow serve` on a free port; yield the port and the process."""
    command = ["-m", "oneflow_jax", "serve", "--port=0", f"--model=shipped={folder}"]
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://[\d.]+:(\d+)", process.stdout.readline())
        yield int(address[1]), process
    finally:
        process.terminate()
        process.wait()


def measure(
    port: int,
    process: subprocess.Popen[str],
    bodies: Sequence[Body],
    expected: Sequence[Body],
    count: int,
    clients: int,
) -> dict[str, float]:
    """Send `count` requests from `clients` threads; return counts, latencies and memory."""
    numbers, lock = itertools.count(), threading.Lock()
    seconds: list[float] = []
    lost, wrong = [], []
    before = _read_counters(port) | {"memory": _memory_mib(process)}

    def run_client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3600)
        while True:
            with lock:
                number = next(numbers)
            if number >= count:
                return
            start = time.perf_counter()
            answer = send(connection, bodies[number % len(bodies)])
            seconds.append(time.perf_counter() - start)
            if answer is None:
                lost.append(number)
            elif _comparable(answer) != expected[number % len(bodies)]:
                wrong.append(number)

    threads = [threading.Thread(target=run_client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    after = _read_counters(port)
    return {
        "requests": len(seconds),
        "lost": len(lost),
        "wrong": len(wrong),
        "requests per second": len(seconds) / elapsed,
        "documents per second": (after["rows"] - before["rows"]) / elapsed,
        "documents per batch": (after["rows"] - before["rows"])
        / max(1, after["batches"] - before["batches"]),
        "latency, s, p50": float(np.quantile(seconds, 0.5)),
        "latency, s, p95": float(np.quantile(seconds, 0.95)),
        "memory before, MiB": before["memory"],
        "memory after, MiB": _memory_mib(process),
    }


def send(connection: http.client.HTTPConnection, body: Body) -> Body | None:
    """Send a request, and return its answer or the last event of its stream; None if it failed."""
    content = json.dumps({name: value for name, value in body.items() if name != "path"})
    try:
        connection.request("POST", body["path"], content, {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode()
    except (OSError, http.client.HTTPException):
        connection.close()
        return None
    if response.status != 200:
        return None
    if not body["stream"]:
        return json.loads(text)
    name, _, data = text.strip().rpartition("\n\n")[2].partition("\ndata: ")
    return json.loads(data) if name == "event: done" else None


def _comparable(answer: Body) -> Body:
    return {"documents": answer["documents"], "changes": answer.get("changes")}


def _read_counters(port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/v1/metrics")
    lines = connection.getresponse().read().decode()
    return {name: float(x) for name, x in re.findall(r"^oneflow_(\w+)_total (\S+)$", lines, re.M)}


def _memory_mib(process: subprocess.Popen[str]) -> float:
    """Return the memory of a process in MiB (Linux)."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def _encode_random_image(rng: np.random.Generator) -> str:
    file = io.BytesIO()
    PIL.Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    report.run_main(main)
