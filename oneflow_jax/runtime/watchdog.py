"""Waits for a process of a run to end, and says what to do if that was too early.

Run as a script of its own, with nothing but the standard library; see `distributed.watch_peers`.
"""

import pathlib
import sys

EXITED_CLEANLY = b"done"


def peer_death_message(index: str, count: str, checkpoints: str) -> str:
    """What to say of process `index` of `count`, whose checkpoints are in a folder."""
    steps = [path.name for path in pathlib.Path(checkpoints).glob("*") if path.name.isdecimal()]
    newest = f"step {max(map(int, steps))}" if steps else "if there is one"
    return (
        f"error: process {index} of this run of {count} stopped before the end, as all of them do "
        "when one is killed or fails; what they said last, above or on other hosts, tells which "
        "and why. The same command, given to all of them again, goes on from the newest "
        f"checkpoint, {newest}."
    )


if __name__ == "__main__":
    if sys.stdin.buffer.read() != EXITED_CLEANLY:
        print(peer_death_message(*sys.argv[1:]), file=sys.stderr)
