"""Roofline estimates of each paradigm's latency on TPUs, at common model sizes."""

from collections.abc import Iterator

from oneflow_jax.compare import aggregate
from oneflow_jax.costs import chips, generation, latency, model_sizes

NFE_VALUES = (8, 16, 32, 64)
"""Numbers of forward passes in the tables."""


def make_tables() -> dict[str, list[list[str]]]:
    """Make tables of minimum seconds per document on TPU v4, one per model and batch size."""
    tables = {}
    for name, batch, setting in iter_workloads():
        rows = [
            [
                aggregate.model_info(way).title,
                *(f"{latency.seconds(kind, n, setting):.3f}" for n in NFE_VALUES),
            ]
            for way, kind in generation.PROFILES.items()
        ]
        title = (
            f"{name}, batch size {batch}, {setting.num_chips} TPU v4: minimum seconds per document"
        )
        tables[title] = [["", *(f"NFE {n}" for n in NFE_VALUES)], *rows]
    return tables


def iter_workloads() -> Iterator[tuple[str, int, latency.Deployment]]:
    """Yield (model size, batch size, deployment), with enough chips for every paradigm."""
    for name, network in model_sizes.NETWORKS.items():
        for batch in (1, 8, 64):
            one = latency.Deployment(network, model_sizes.DOCUMENT, batch, chips.CHIPS["v4"])
            yield name, batch, latency.fit_chips(one, generation.PROFILES.values())
