"""Worker process of data preparation that also logs every file that it opens.

`benchmarks.fuzz` starts this worker in place of `oneflow_jax.data.custom.worker`. The worker logs
the paths of opened files in the trial's root folder and in /etc. The log is `opened.txt` in the
root folder.
"""

import os
import pathlib
import sys

from oneflow_jax.data.custom import worker

LOG_FILE = "opened.txt"


def main() -> None:
    """Run the worker with an audit hook on opened files."""
    top = pathlib.Path(sys.argv[1]).resolve().parents[2]
    log = os.open(top / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path.startswith((f"{top}{os.sep}", "/etc/")):
                os.write(log, path.encode("utf-8", "surrogateescape") + b"\n")

    sys.addaudithook(note)
    worker.main()


if __name__ == "__main__":
    main()
