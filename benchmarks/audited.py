"""The process that makes units of own data, which also notes each file that it opens.

`benchmarks.fuzz` starts it as it would start `oneflow_jax.data.custom.worker`; what it opens of the
folder above that of the prepared data goes to `opened.txt` there.
"""

import os
import pathlib
import sys

from oneflow_jax.data.custom import worker

LOG_FILE = "opened.txt"


def main() -> None:
    """Makes units."""
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
