"""What each paradigm would take on TPUs at least, at the sizes that people train."""

from collections.abc import Iterator

from oneflow_jax.compare import aggregate
from oneflow_jax.costs import chips, latency, sizes, ways

PASSES = (8, 16, 32, 64)
"""Of the concurrent paradigms."""


def tables() -> dict[str, list[list[str]]]:
    """Least seconds a document on TPU v4 by size and batch: computed, not measured."""
    found = {}
    for name, batch, setting in settings():
        rows = [
            [
                aggregate.named(way).title,
                *(f"{latency.seconds(kind, n, setting):.3f}" for n in PASSES),
            ]
            for way, kind in ways.WAYS.items()
        ]
        title = f"{name}, batch {batch}, {setting.chips} TPU v4: least seconds a document"
        found[title] = [["", *(f"{n} passes" for n in PASSES)], *rows]
    return found


def settings() -> Iterator[tuple[str, int, latency.Setting]]:
    """Each size and batch, on as many chips as the paradigm that needs most."""
    for name, network in sizes.NETWORKS.items():
        for batch in (1, 8, 64):
            one = latency.Setting(network, sizes.DOCUMENT, batch, chips.CHIPS["v4"])
            yield name, batch, latency.with_chips(one, ways.WAYS.values())
