"""A process that makes units: `python -m oneflow_jax.data.custom.worker FOLDER`.

It reads what to make from its input, a JSON line for each unit, and says on its output what it is
at, so that whoever started it knows which document it died of.
"""

import contextlib
import json
import os
import pathlib
import resource
import sys
import traceback
from typing import TextIO

from oneflow_jax.data.custom import manifest, shard

MAX_MEMORY_BYTES = 8 * 2**30
"""Bytes that it may take: what wants more is refused, before the machine kills whom it likes."""


def main() -> None:
    """Makes units until its input ends."""
    with contextlib.suppress(ValueError, OSError):  # Not everywhere can it be set.
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    # Libraries print; what is said to the one who listens goes another way.
    said = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    plan = manifest.load(pathlib.Path(sys.argv[1]))
    if plan is None:
        sys.exit(f"{sys.argv[1]}: no plan")
    for line in sys.stdin:
        task = json.loads(line)
        number = task["unit"]
        skip = {int(place): reason for place, reason in task["skip"].items()}
        _send(said, "began", number)
        try:
            shard.write_shard(
                plan, number, skip, tuple(task["stop"]), lambda *what: _send(said, *what)
            )
        except OSError as error:  # Hostile files are told of elsewhere; this is the disk.
            _send(said, "full", str(error))
        except Exception:
            _send(said, "failed", traceback.format_exc())
        else:
            _send(said, "done", number)


def _send(stream: TextIO, event: str, value: int | str) -> None:
    stream.write(json.dumps([event, value]) + "\n")


if __name__ == "__main__":
    main()
