"""Writes the notes of a comparison: which model is faster, how metrics are measured, caveats."""

from collections.abc import Iterator, Mapping

from oneflow_jax.build import paradigms
from oneflow_jax.compare import page, rooflines
from oneflow_jax.costs import generation, latency, model_sizes

IMAGE_NFE = 9
"""Forward passes per image in roofline notes, for autoregressive models with a flow of images."""

NFE_PER_IMAGE_MODELS = ("transfusion", "lmfusion")
"""Models whose number of forward passes is set per image."""

CAVEATS = (
    (
        ("oneflow", "mask_flow"),
        "OneFlow and Mask Flow are given the layout of each document, sampled from the data: the "
        "number and the lengths of text spans and images. The other models choose the layout.",
    ),
    (
        ("dalle",),
        "DALL-E writes all text before all images, so metrics only score the order of names and "
        "the order of images.",
    ),
    (
        ("lmfusion",),
        "LMFusion's FLOPs are counted as if each slot passed through its own tower only. The "
        "program computes both towers and selects one, so it takes longer than these FLOPs "
        "suggest. The FLOPs include those of its text model.",
    ),
    (
        paradigms.USES_IMAGE_TOKENS,
        "The codes of Chameleon and DALL-E come from a VQModel that was trained beforehand. Its "
        "FLOPs are not counted, and it was trained on more emoji than the documents show.",
    ),
    (
        (),
        "Forward passes and seconds on the curves were measured on large batches, in which all "
        "rows wait for the slowest one. Each training run was timed once.",
    ),
    (
        ("chameleon", "dalle", "transfusion", "lmfusion"),
        "Autoregressive models use a KV cache: most of their forward passes process one slot, "
        "whereas a forward pass of the concurrent models processes all slots.",
    ),
    ((), "The documents on the page are the first that were generated, without selection."),
)
"""(names of models, caveat); a caveat without names applies to all models."""

DATA_CAVEATS = {
    "emoji": "The data has one image for each name: the metrics measure whether text and images "
    "agree, not whether images are novel. Intervals over documents are narrow, because names "
    "recur.",
    "emoji_styles": "The data has several images of each name, one for each style. Compositions "
    "are pairs of a name and a style that are not in training. Learning rates were tuned on data "
    "with one image for each name.",
}
"""Caveat by data set."""

SEEDS_NOTE = (
    "Metrics are means over {count} training runs of each model, which differ in their seed. "
    "Intervals are Student's t intervals over the runs, or bootstrap intervals over documents if "
    "those are wider. Forward passes and seconds of single documents, the documents shown and "
    "their timelines come from the first run."
)


def make_notes(
    comparison: page.ComparisonResult, reported_nfe: Mapping[str, int], data_set: str
) -> list[str]:
    """Write the notes: which model is faster, how metrics were measured, and caveats.

    Args:
        comparison: results of the comparison.
        reported_nfe: number of forward passes for the tables, by model.
        data_set: name of the data set.
    """
    models = {one.name: one for one in comparison.models}
    flows = [
        f"{one.title} {reported_nfe[name]}"
        for name, one in models.items()
        if name in generation.PROFILES and not generation.PROFILES[name].uses_kv_cache
    ]
    pictures = [
        f"{models[name].title} {reported_nfe[name]}"
        for name in NFE_PER_IMAGE_MODELS
        if name in models
    ]
    most = [f"{', '.join(flows)} for a document"] * bool(flows)
    most += [f"{', '.join(pictures)} for each image, and one per token"] * bool(pictures)
    method_note = "Each image has its own prompt; documents have no prompt."
    if most:
        method_note = (
            f"Metrics are measured with at most these forward passes: {'; '.join(most)}. "
            f"{method_note}"
        )
    count = len(comparison.seeds)
    trainings = [SEEDS_NOTE.format(count=count)] * (count > 1)
    caveats = [DATA_CAVEATS[data_set]] if data_set in DATA_CAVEATS else []
    caveats += [caveat for names, caveat in CAVEATS if not names or set(names) & set(models)]
    both = "oneflow" in models and _cached_models(models)
    compared = [*_crossover_notes(models), *_roofline_notes(models)] if both else []
    return [*compared, method_note, *trainings, *_frozen_text_notes(models), *caveats]


def _crossover_notes(models: Mapping[str, page.ModelResult]) -> Iterator[str]:
    """Yield notes on the largest NFE at which OneFlow is faster, from measured seconds."""
    cached = _cached_models(models)
    for figure, batch_size in (("seconds_per_document", "1"), ("seconds_per_document_8", "8")):
        flow = models["oneflow"].metrics
        each = flow[figure].value / flow["nfe"].value
        limits = {one.title: int(one.metrics[figure].value / each) for one in cached}
        yield (
            f"Measured at batch size {batch_size}, a forward pass of OneFlow takes {each:.4f} s "
            f"per document. So the largest NFE at which OneFlow is faster is "
            f"{_describe_limits(limits)}."
        )


def _roofline_notes(models: Mapping[str, page.ModelResult]) -> Iterator[str]:
    """Yield notes on the largest NFE at which OneFlow is faster, from rooflines."""
    cached = _cached_models(models)
    document = model_sizes.DOCUMENT
    yield (
        f"Rooflines are for a document of {document.num_text_tokens} tokens and "
        f"{document.num_images} images, each of {document.patches_per_image} patches or "
        f"{document.codes_per_image:,} codes. The tables give the number of forward passes for "
        "the whole document; for Transfusion and LMFusion, they give the number per image. "
        f"In the next notes, Transfusion and LMFusion take {IMAGE_NFE} forward passes per image."
    )
    for name, batch, setting in rooflines.iter_workloads():
        flow = generation.PROFILES["oneflow"]
        limits = {
            one.title: latency.seconds(generation.PROFILES[one.name], IMAGE_NFE, setting)
            for one in cached
        }
        crossovers = {
            title: latency.crossover_nfe(flow, limit, setting) for title, limit in limits.items()
        }
        yield (
            f"By roofline on TPU v4, with {name} parameters and batch size {batch}, the largest "
            f"NFE at which OneFlow is faster is {_describe_limits(crossovers)}."
        )


def _describe_limits(limits: Mapping[str, int | None]) -> str:
    """List the largest NFE at which OneFlow is faster than each model; None if there is none."""
    return ", ".join(
        f"{'none' if nfe is None else nfe} in comparison with {title}"
        for title, nfe in limits.items()
    )


def _frozen_text_notes(models: Mapping[str, page.ModelResult]) -> Iterator[str]:
    """Yield a note with a frozen text model's loss before and after image training."""
    for one in models.values():
        if "text_loss_finetuned" in one.metrics:
            before, after = (
                one.metrics[f"text_loss_{when}"].value for when in ("pretrained", "finetuned")
            )
            yield (
                f"{one.title}'s text loss on held-out documents without images, whose names are "
                f"not in the training data: {before!r} nats per token before training on images, "
                f"{after!r} after."
            )


def _cached_models(models: Mapping[str, page.ModelResult]) -> list[page.ModelResult]:
    """Return the models with a KV cache, which generate from left to right."""
    return [
        one
        for name, one in models.items()
        if name in generation.PROFILES and generation.PROFILES[name].uses_kv_cache
    ]
