"""What a comparison says of itself in words: who is faster where, by its figures; its caveats."""

from collections.abc import Iterator, Mapping

from oneflow_jax.build import paradigms
from oneflow_jax.compare import page, rooflines
from oneflow_jax.costs import latency, sizes, ways

IMAGE_NFE = 9
"""Passes of a picture's flow, from left to right."""

NFE_PER_IMAGE_MODELS = ("transfusion", "lmfusion")
"""Those whose passes are counted by the picture."""

CAVEATS = (
    (
        ("oneflow", "mask_flow"),
        "OneFlow and Mask Flow are told the layout of each document, drawn from those of the data: "
        "how many runs of words and pictures there are, and how long; the others choose it.",
    ),
    (
        ("dalle",),
        "DALL-E's documents have all words first: of their order only that of names and pictures "
        "counts.",
    ),
    (
        ("lmfusion",),
        "LMFusion's FLOPs are counted as if each slot went through its own tower alone; the "
        "program runs both and picks, so that it takes longer. Its text model takes its share of "
        "them.",
    ),
    (
        paradigms.USES_IMAGE_TOKENS,
        "The codes of Chameleon and DALL-E come from a VQModel that was trained before, whose "
        "FLOPs are not counted, and which has seen more emoji than the documents show.",
    ),
    (
        (),
        "The data has one picture for each name: what is measured is whether words and pictures "
        "agree, not whether pictures are new. Intervals over documents are narrow, since names "
        "recur.",
    ),
    (
        (),
        "Passes and seconds on the curves are of large batches, in which rows wait for one "
        "another; each training's were timed once.",
    ),
    (
        ("chameleon", "dalle", "transfusion", "lmfusion"),
        "Passes of those that write from left to right are with a cache: most are of one slot, "
        "while a pass of the concurrent ones is of all slots.",
    ),
    ((), "The documents shown are the first ones, not picked."),
)
"""Of whom they are, and what they say; without names, of all."""

SEEDS_NOTE = (
    "Figures are means over {count} trainings of each, which differ in their seed; intervals are "
    "Student's, of these, or those over documents if they are wider. Passes and seconds of single "
    "documents, the documents shown and how they come about are of the first training."
)


def make_notes(comparison: page.ComparisonResult, reported_nfe: Mapping[str, int]) -> list[str]:
    """Who wins where, and what to keep in mind.

    Args:
        comparison: with its figures.
        reported_nfe: forward passes that figures are of, by contestant.
    """
    every = {one.name: one for one in comparison.contestants}
    flows = [
        f"{one.title} {reported_nfe[name]}"
        for name, one in every.items()
        if name in ways.PROFILES and not ways.PROFILES[name].cached
    ]
    pictures = [
        f"{every[name].title} {reported_nfe[name]}"
        for name in NFE_PER_IMAGE_MODELS
        if name in every
    ]
    most = [f"{', '.join(flows)} for a document"] * bool(flows)
    most += [f"{', '.join(pictures)} for each picture, words a pass each"] * bool(pictures)
    asked = "Images are asked for one by one, documents from nothing."
    if most:
        asked = f"Figures are of these forward passes, at most: {'; '.join(most)}. {asked}"
    count = len(comparison.seeds)
    trainings = [SEEDS_NOTE.format(count=count)] * (count > 1)
    caveats = [said for of, said in CAVEATS if not of or set(of) & set(every)]
    both = "oneflow" in every and _cached_models(every)
    compared = [*_crossover_notes(every), *_roofline_notes(every)] if both else []
    return [*compared, asked, *trainings, *_frozen_text_notes(every), *caveats]


def _crossover_notes(models: Mapping[str, page.ModelResult]) -> Iterator[str]:
    """Up to how many passes OneFlow would be faster than the others, here."""
    cached = _cached_models(models)
    for figure, said in (("seconds_per_document", "one"), ("seconds_per_document_8", "eight")):
        flow = models["oneflow"].figures
        each = flow[figure].value / flow["passes"].value
        than = [f"{one.title} up to {int(one.figures[figure].value / each)}" for one in cached]
        yield (
            f"Measured here, {said} at a time, a pass of OneFlow takes {each:.4f} s a document: it "
            f"is faster than {', '.join(than)} passes."
        )


def _roofline_notes(models: Mapping[str, page.ModelResult]) -> Iterator[str]:
    """The same by roofline."""
    cached = _cached_models(models)
    asked = sizes.DOCUMENT
    yield (
        f"The rooflines are of a document of {asked.words} words and {asked.pictures} "
        f"pictures, each of {asked.patches} patches or {asked.codes:,} codes. Passes are of "
        "the whole document, but of each picture for Transfusion and LMFusion."
    )
    for name, batch, setting in rooflines.iter_workloads():
        flow = ways.PROFILES["oneflow"]
        limits = {
            one.title: latency.seconds(ways.PROFILES[one.name], IMAGE_NFE, setting)
            for one in cached
        }
        than = [
            f"{title} up to {latency.crossover_nfe(flow, limit, setting) or 'no'}"
            for title, limit in limits.items()
        ]
        yield (
            f"By roofline on TPU v4 with {name} parameters, batch {batch}, {IMAGE_NFE} passes a "
            f"picture for the others: OneFlow is faster than {', '.join(than)} passes."
        )


def _frozen_text_notes(models: Mapping[str, page.ModelResult]) -> Iterator[str]:
    """What learning pictures has done to the words of a frozen text model: nothing."""
    for one in models.values():
        if "text_loss_after" in one.figures:
            before, after = (one.figures[f"text_loss_{when}"].value for when in ("before", "after"))
            yield (
                f"{one.title}'s loss in words of held-out documents without pictures, whose names "
                f"training never showed: {before!r} nats a token before it learned pictures, "
                f"{after!r} after."
            )


def _cached_models(models: Mapping[str, page.ModelResult]) -> list[page.ModelResult]:
    """Those that write from left to right."""
    return [
        one for name, one in models.items() if name in ways.PROFILES and ways.PROFILES[name].cached
    ]
