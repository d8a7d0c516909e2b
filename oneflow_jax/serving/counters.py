"""Counts of requests and batches since the server started, as Prometheus text."""

import threading

HELP = {
    "received": "Requests that entered the queue.",
    "refused": "Requests that were refused because the queue was full.",
    "cancelled": "Requests whose client left before they were finished.",
    "failed": "Requests that failed.",
    "finished": "Requests that were finished.",
    "batches": "Batches that were run.",
    "rows": "Documents that were run, over all batches.",
}
"""Help text of each counter."""


class Counters:
    """Thread-safe counters with the names in `HELP`."""

    def __init__(self) -> None:
        """Start all counters at 0."""
        self._counts = dict.fromkeys(HELP, 0)
        self._lock = threading.Lock()

    def add(self, name: str, count: int = 1) -> None:
        """Add `count` to a counter."""
        with self._lock:
            self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def format(self, num_waiting: int) -> str:
        """Return all counters and the length of the queue in the text format of Prometheus."""
        lines = [
            line
            for name, text in HELP.items()
            for line in (
                f"# HELP oneflow_{name}_total {text}",
                f"# TYPE oneflow_{name}_total counter",
                f"oneflow_{name}_total {self._counts[name]}",
            )
        ]
        lines += [
            "# HELP oneflow_queue_length Requests that wait.",
            "# TYPE oneflow_queue_length gauge",
            f"oneflow_queue_length {num_waiting}",
        ]
        return "\n".join(lines) + "\n"
