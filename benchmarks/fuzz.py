"""Fuzzing of data preparation with corrupted files of every format: `python -m benchmarks.fuzz`.

The benchmark counts what must not happen: processes that die or hang, unexpected errors, and files
that the worker opens outside of the data folder. To provoke such accesses, a secret folder lies
next to the data folder. The data folder contains links to the secret folder, files with paths into
it, and a named pipe.
"""

import argparse
import json
import os
import pathlib
import random
import sys
import tempfile
import time
from typing import Any

from benchmarks import audited, corpus, report
from oneflow_jax.data.custom import prepare, store
from oneflow_jax.data.custom.reader import Settings

WORKER_COMMAND = (sys.executable, "-m", "benchmarks.audited")
NUM_VALID = 12
"""Number of calls of a format's function whose files stay valid, so both splits have documents."""

TRAVERSAL_FRACTION = 0.2
"""Fraction of the other files that refer to files outside the folder; the rest is corrupted."""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run a trial of each format, print, and return the results that --json writes."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument(
        "--files", type=int, default=1_000, help="corrupted files of each format (default: 1000)"
    )
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument(
        "--kinds", nargs="+", choices=list(corpus.FORMATS), default=list(corpus.FORMATS)
    )
    flags.add_argument(
        "--patience", type=float, default=20.0, help="read timeout in seconds (default: 20)"
    )
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    options = flags.parse_args(argv)
    results_by_format = {}
    for kind in options.kinds:
        with tempfile.TemporaryDirectory(prefix=f"fuzz-{kind}-") as top:
            results_by_format[kind] = run_trial(
                pathlib.Path(top).resolve(), kind, options.files, options.seed, options.patience
            )
        rows = [(name, str(value)) for name, value in results_by_format[kind].items()]
        report.print_table(f"{kind}, seed {options.seed}", rows)
    total = {
        name: sum(each[name] for each in results_by_format.values())
        for name in ("files", "crashes", "hangs", "unexpected", "outside")
    }
    report.print_table("all", [(name, str(value)) for name, value in total.items()])
    results = {"seed": options.seed, "kinds": results_by_format, "total": total}
    report.save_json(options.json, results)
    return results


def run_trial(
    root: pathlib.Path, data_format: str, num_files: int, seed: int, timeout_s: float
) -> dict[str, Any]:
    """Write `num_files` corrupted files of a format, prepare them, and count failures."""
    inside = root / "inside"
    write_files(inside, data_format, num_files, seed)
    settings = Settings(
        path=str(inside), format=data_format, heldout_fraction=0.3, pixels=8, read_timeout=timeout_s
    )
    began = time.monotonic()
    folder = prepare.prepare(settings, str(root / "data"), 1, WORKER_COMMAND)
    seconds = time.monotonic() - began
    tally = store.open_prepared(folder).stats
    opened = (root / audited.LOG_FILE).read_bytes().decode("utf-8", "surrogateescape").splitlines()
    allowed = (f"{inside}{os.sep}", f"{root / 'data'}{os.sep}")
    secret = str(root / "secret")
    # Other files in /etc do not count, since Python itself opens some of them.
    outside = {
        path
        for path in opened
        if not path.startswith(allowed) and (path.startswith(secret) or path == "/etc/passwd")
    }
    leaked = sum(
        corpus.CANARY in document.text()
        for split in ("train", "heldout")
        for document in prepare.open_folder(folder, split)
    )
    return {
        "files": num_files,
        "documents": tally.seen,
        "kept": tally.documents.total(),
        "crashes": tally.dropped["the reader died"],
        "hangs": tally.dropped["the reader hung"],
        "unexpected": tally.dropped["unexpected error"],
        "outside": len(outside) + leaked,
        "dropped": dict(tally.dropped.most_common()),
        "lost": dict(tally.lost.most_common()),
        "repaired": dict(tally.repaired.most_common()),
        "places": {
            name: tally.places[name]
            for name in ("the reader died", "the reader hung", "unexpected error")
            if name in tally.places
        },
        "seconds": round(seconds, 1),
    }


def write_files(folder: pathlib.Path, data_format: str, num_files: int, seed: int) -> None:
    """Write valid and corrupted files to `folder`, and create the folder `secret` next to it."""
    secret = folder.parent / "secret"
    secret.mkdir()
    draws = random.Random(f"fuzz/{data_format}/{seed}")
    (secret / "canary.png").write_bytes(corpus.make_image(draws))
    (secret / "canary.txt").write_text(corpus.CANARY)
    folder.mkdir()
    (folder / "link.png").symlink_to(secret / "canary.png")
    (folder / "link.txt").symlink_to(secret / "canary.txt")
    (folder / "away").symlink_to(secret)
    os.mkfifo(folder / "pipe.png")
    num_corrupted = number = 0
    while num_corrupted < num_files:
        for name, data in corpus.FORMATS[data_format](draws, number):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            sound = number < NUM_VALID
            if not sound and draws.random() < TRAVERSAL_FRACTION:
                data = corpus.with_path_traversal(draws, name, data, secret)
            elif not sound:
                data = corpus.corrupt(draws, data)
            path.write_bytes(data)
            num_corrupted += not sound
        number += 1


if __name__ == "__main__":
    print(json.dumps(main()["total"]))
