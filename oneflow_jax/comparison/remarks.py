"""What a comparison says of itself in words: who is faster where, by its figures; its caveats."""

from collections.abc import Iterator, Mapping

from oneflow_jax.costs import chips, latency, sizes, ways
from oneflow_jax.viewer import comparison as page

DOCUMENT = ways.Shape(words=256, pictures=4, patches=256, codes=1_024)
"""The document of the rooflines."""

PICTURE = 9
"""Passes of a picture's flow, from left to right."""

PASSES = (8, 16, 32, 64)
"""Of the concurrent paradigms."""

CAVEATS = (
    "OneFlow and Mask Flow are told the layout of each document, drawn from those of the data: "
    "how many runs of words and pictures there are, and how long; the others choose it.",
    "DALL-E's documents have all words first: of their order only that of names and pictures "
    "counts.",
    "LMFusion's FLOPs are counted as if each slot went through its own tower alone; the program "
    "runs both and picks, so that it takes longer. A third of them goes to its text model.",
    "The codes of Chameleon and DALL-E come from a VQModel that was trained before, whose FLOPs "
    "are not counted.",
    "Passes of Chameleon, DALL-E, Transfusion and LMFusion are with a cache: most are of one "
    "slot, while a pass of the concurrent ones is of all slots.",
    "The documents shown are the first ones, not picked.",
)


def notes(comparison: page.Comparison) -> list[str]:
    """Who wins where, and what to keep in mind."""
    every = {one.name: one for one in comparison.contestants}
    return [*_overtaken(every), *_on_chips(every), *CAVEATS]


def rooflines() -> dict[str, list[list[str]]]:
    """Least seconds a document on TPU v4 by size and batch: computed, not measured."""
    heads = [*(f"{n} passes" for n in PASSES)]
    tables = {}
    for name, network in sizes.NETWORKS.items():
        for batch in (1, 8, 64):
            setting = _setting(network, batch)
            rows = [
                [way, *(f"{latency.seconds(kind, n, setting):.3f}" for n in PASSES)]
                for way, kind in ways.WAYS.items()
            ]
            title = f"{name}, batch {batch}, {setting.chips} TPU v4: least seconds a document"
            tables[title] = [["", *heads], *rows]
    return tables


def _setting(network: object, batch: int) -> latency.Setting:
    one = latency.Setting(network, DOCUMENT, batch, chips.CHIPS["v4"])
    needed = max(latency.chips_needed(way, one) for way in ways.WAYS.values())
    return latency.Setting(network, DOCUMENT, batch, chips.CHIPS["v4"], needed)


def _overtaken(every: Mapping[str, page.Contestant]) -> Iterator[str]:
    """Up to how many passes the concurrent ones would be faster than the others, here."""
    if "oneflow" not in every:
        return
    flow = every["oneflow"].figures
    for figure, said in (("seconds_per_document", "one"), ("seconds_per_document_8", "eight")):
        if figure not in flow:
            continue
        each = flow[figure].value / flow["passes"].value
        than = [
            f"{one.title} up to {int(one.figures[figure].value / each)}"
            for name, one in every.items()
            if name in ways.WAYS and ways.WAYS[name].cached
        ]
        yield (
            f"Measured here, {said} at a time, a pass of OneFlow takes {each:.3f} s a document: it "
            f"is faster than {', '.join(than)} passes."
        )


def _on_chips(every: Mapping[str, page.Contestant]) -> Iterator[str]:
    if "oneflow" not in every:
        return
    for name, network in sizes.NETWORKS.items():
        for batch in (1, 8, 64):
            setting = _setting(network, batch)
            than = [
                f"{other.title} up to {latency.overtaking(ways.WAYS['oneflow'], limit, setting)}"
                for key, other in every.items()
                if ways.WAYS[key].cached
                for limit in [latency.seconds(ways.WAYS[key], PICTURE, setting)]
            ]
            yield (
                f"By roofline on TPU v4 with {name} parameters, batch {batch}: OneFlow is faster "
                f"than {', '.join(than)} passes."
            )
