"""Watchdog: prints how to resume if a training process dies before the run ends.

`distributed.watch_peers` starts this module as a script. It imports only the standard library.
"""

import pathlib
import sys

EXITED_CLEANLY = b"done"


def peer_death_message(index: str, count: str, checkpoints: str) -> str:
    """Return the message about the death of process `index` of `count`.

    Args:
        index: index of the process.
        count: number of processes of the run.
        checkpoints: folder of the run's checkpoints.
    """
    steps = [path.name for path in pathlib.Path(checkpoints).glob("*") if path.name.isdecimal()]
    newest = f"step {max(map(int, steps))}" if steps else "if there is one"
    return (
        f"error: process {index} of {count} stopped before the end of the run. All processes stop "
        "when one is killed or fails; the last messages, above or on other hosts, show which one "
        "and why. To resume, start all processes again with the same command. They resume from the "
        f"newest checkpoint, {newest}."
    )


if __name__ == "__main__":
    if sys.stdin.buffer.read() != EXITED_CLEANLY:
        print(peer_death_message(*sys.argv[1:]), file=sys.stderr)
