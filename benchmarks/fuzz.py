"""Spoiled data of every kind through the real preparation: `python -m benchmarks.fuzz`.

What is counted is what must not happen: processes that die or hang, errors that no reader knows,
and files opened outside the folder. Beside the folder lies a secret; in it are links to that, a
pipe, and names that lead there.
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
from oneflow_jax.data.custom import prepare
from oneflow_jax.data.custom.reader import Settings

COMMAND = (sys.executable, "-m", "benchmarks.audited")
SOUND = 12
"""Documents of each kind that are left as they are: both splits get some."""

LURED = 0.2
"""Share of the other files in which names lead to the secret; the rest is spoiled."""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Tries, prints, and returns what --json writes."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--files", type=int, default=1_000, help="spoiled ones of each kind")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--kinds", nargs="+", choices=list(corpus.KINDS), default=list(corpus.KINDS))
    flags.add_argument("--patience", type=float, default=20.0, help="seconds over one document")
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    given = flags.parse_args(argv)
    found = {}
    for kind in given.kinds:
        with tempfile.TemporaryDirectory(prefix=f"fuzz-{kind}-") as top:
            found[kind] = tried(
                pathlib.Path(top).resolve(), kind, given.files, given.seed, given.patience
            )
        rows = [(name, str(value)) for name, value in found[kind].items()]
        report.show(f"{kind}, seed {given.seed}", rows)
    total = {
        name: sum(each[name] for each in found.values())
        for name in ("files", "crashes", "hangs", "unexpected", "outside")
    }
    report.show("all", [(name, str(value)) for name, value in total.items()])
    results = {"seed": given.seed, "kinds": found, "total": total}
    report.keep(given.json, results)
    return results


def tried(top: pathlib.Path, kind: str, files: int, seed: int, patience: float) -> dict[str, Any]:
    """What came of so many spoiled files of a kind, in an empty folder."""
    inside = top / "inside"
    write(inside, kind, files, seed)
    settings = Settings(path=str(inside), kind=kind, held_out=0.3, pixels=8, patience=patience)
    began = time.monotonic()
    prepared = prepare.prepared(settings, str(top / "data"), 1, COMMAND)
    seconds = time.monotonic() - began
    tally = prepare.tally(prepared)
    opened = (top / audited.LOG).read_bytes().decode("utf-8", "surrogateescape").splitlines()
    allowed = (f"{inside}{os.sep}", f"{top / 'data'}{os.sep}")
    secret = str(top / "secret")
    # What else Python opens, as for the names of character sets, is no user's.
    outside = {
        path
        for path in opened
        if not path.startswith(allowed) and (path.startswith(secret) or path == "/etc/passwd")
    }
    told = sum(
        corpus.SECRET in document.words()
        for split in ("train", "heldout")
        for document in prepare.source(settings, str(top / "data"), split, 1)
    )
    return {
        "files": files,
        "documents": tally.seen,
        "kept": tally.documents.total(),
        "crashes": tally.dropped["the reader died"],
        "hangs": tally.dropped["the reader hung"],
        "unexpected": tally.dropped["unexpected error"],
        "outside": len(outside) + told,
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


def write(inside: pathlib.Path, kind: str, files: int, seed: int) -> None:
    """Writes sound and spoiled files into a folder, and a secret beside it."""
    secret = inside.parent / "secret"
    secret.mkdir()
    draws = random.Random(f"fuzz/{kind}/{seed}")
    (secret / "canary.png").write_bytes(corpus.picture(draws))
    (secret / "canary.txt").write_text(corpus.SECRET)
    inside.mkdir()
    (inside / "link.png").symlink_to(secret / "canary.png")
    (inside / "link.txt").symlink_to(secret / "canary.txt")
    (inside / "away").symlink_to(secret)
    os.mkfifo(inside / "pipe.png")
    made = number = 0
    while made < files:
        for name, data in corpus.KINDS[kind](draws, number):
            path = inside / name
            path.parent.mkdir(exist_ok=True)
            sound = number < SOUND
            if not sound and draws.random() < LURED:
                data = corpus.lured(draws, name, data, secret)
            elif not sound:
                data = corpus.spoiled(draws, data)
            path.write_bytes(data)
            made += not sound
        number += 1


if __name__ == "__main__":
    print(json.dumps(main()["total"]))
