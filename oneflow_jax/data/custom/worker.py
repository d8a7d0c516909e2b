"""Worker process that prepares units: `python -m oneflow_jax.data.custom.worker FOLDER`.

The process reads a JSON line for each unit from its standard input, and reports its progress on its
standard output. From these reports, the parent process knows which document caused a crash.
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
"""Memory limit of the process, in bytes. Without a limit, the kernel might kill other processes."""


def main() -> None:
    """Prepare units until standard input ends."""
    with contextlib.suppress(ValueError, OSError):  # Not all systems support this limit.
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    # Libraries print to standard output. Therefore send messages to the parent through a copy of
    # standard output, and redirect standard output to standard error.
    messages = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    plan = manifest.load(pathlib.Path(sys.argv[1]))
    if plan is None:
        sys.exit(f"{sys.argv[1]}: plan.json is missing, or another version wrote it")
    for line in sys.stdin:
        task = json.loads(line)
        number = task["unit"]
        skip = {int(place): reason for place, reason in task["skip"].items()}
        _send(messages, "began", number)
        try:
            shard.write_shard(
                plan, number, skip, tuple(task["stop"]), lambda *what: _send(messages, *what)
            )
        except OSError as error:
            # Readers convert errors of source files to DataError, so this is an error in writing.
            _send(messages, "full", str(error))
        except Exception:
            _send(messages, "failed", traceback.format_exc())
        else:
            _send(messages, "done", number)


def _send(stream: TextIO, event: str, value: int | str) -> None:
    stream.write(json.dumps([event, value]) + "\n")


if __name__ == "__main__":
    main()
