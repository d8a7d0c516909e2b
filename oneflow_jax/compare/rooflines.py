"""What each paradigm would take on TPUs at least, at the sizes that people train."""

from collections.abc import Iterator

from oneflow_jax.compare import aggregate
from oneflow_jax.costs import chips, latency, sizes, ways

NFE_VALUES = (8, 16, 32, 64)
"""Of the concurrent paradigms."""


def make_tables() -> dict[str, list[list[str]]]:
    """Least seconds a document on TPU v4 by size and batch: computed, not measured."""
    found = {}
    for name, batch, setting in iter_workloads():
        rows = [
            [
                aggregate.model_info(way).title,
                *(f"{latency.seconds(kind, n, setting):.3f}" for n in NFE_VALUES),
            ]
            for way, kind in ways.PROFILES.items()
        ]
        title = f"{name}, batch {batch}, {setting.chips} TPU v4: least seconds a document"
        found[title] = [["", *(f"{n} passes" for n in NFE_VALUES)], *rows]
    return found


def iter_workloads() -> Iterator[tuple[str, int, latency.Deployment]]:
    """Each size and batch, on as many chips as the paradigm that needs most."""
    for name, network in sizes.NETWORKS.items():
        for batch in (1, 8, 64):
            one = latency.Deployment(network, sizes.DOCUMENT, batch, chips.CHIPS["v4"])
            yield name, batch, latency.fit_chips(one, ways.PROFILES.values())
