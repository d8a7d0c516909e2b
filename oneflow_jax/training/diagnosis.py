"""One sentence that says whether a model learned what its data has, or what went wrong.

The sentence follows from the shuffled gains (`document_losses`), from overfitting (`overfitting`),
from the match of captions and images in the data (`evaluation.caption_match`), and, after an
evaluation, from the metrics of the suite "own" (`evaluation.own_data`). If several
findings apply, the sentence has the first one of this order: what makes all other figures useless
comes first. With fewer than `MIN_DOCUMENTS` held-out documents, the sentence judges only what
training documents and generated images show, and otherwise says that these documents are too few.
"""

from collections.abc import Mapping, Sequence

from oneflow_jax.training import conditioning, document_losses, overfitting
from oneflow_jax.training.conditioning import SPLITS, Gain
from oneflow_jax.training.overfitting import Overfitting

MIN_DOCUMENTS = 10
"""Minimum number of held-out documents for a judgement that needs them.

A 95 % bootstrap interval over few documents is too narrow. For normal gains, it contains the true
gain in only 84 % of simulated cases with 5 documents, in 90 % with 10, and in 92 % with 20
(`benchmarks.coverage`). A folder of 100 documents holds out 10 (`build.heldout_fraction`).
"""

MIN_DIVERSITY = 0.1
"""Images are all alike if their mean distance is below this fraction of that of real images."""

MAX_CHANCE = 0.56
"""Captions are called wrong only if their match by chance is at most this: with fewer documents, it
could be missed."""

MAX_MEMORIZATION = 0.5
"""Images are copies if the memorization rate of images for held-out captions is above this."""

_NOUNS = {"image": ("Images", "texts"), "text": ("Texts", "images")}
"""For each loss term: what is generated, and what it is conditioned on."""


def diagnose(metrics: Mapping[str, float], overfitted: Sequence[Overfitting] = ()) -> str:
    """Return the sentence, or "" if the metrics have no shuffled gains.

    Args:
        metrics: metrics by name, of an evaluation during training or of `--mode=evaluate`. Metrics
            of generated documents end in @NFE; those of the highest NFE are used.
        overfitted: what `overfitting.find` returns.
    """
    gains = _read_gains(metrics)
    if not gains:
        return ""
    few = _describe_few_documents(metrics)
    findings = (
        (_describe_collapse(metrics), _describe_independence(gains), few)
        if few
        else (
            _describe_collapse(metrics),
            _describe_mismatch(metrics, gains),
            _describe_independence(gains),
            _describe_overfitting(overfitted),
            _describe_copies(metrics),
            _describe_training_only(gains),
        )
    )
    for finding in findings:
        if finding:
            return f"Diagnosis: {finding}"
    pairs = [_NOUNS[term] for term in gains]
    depend = " and ".join(f"{made.lower()} depend on {condition}" for made, condition in pairs)
    return f"Diagnosis: good. Generated {depend}, also in held-out documents."


def describe_evidence(
    metrics: Mapping[str, float], overfitted: Sequence[Overfitting] = ()
) -> list[str]:
    """Return sentences about conditioning gains and overfitting, which need held-out documents.

    With too few held-out documents the result is empty, because none of it would be certain. With
    a diagnosis, it has no conditioning gains: the diagnosis answers the same question by shuffled
    gains, and two answers could contradict each other.

    Args:
        metrics: as in `diagnose`.
        overfitted: what `overfitting.find` returns.
    """
    if _describe_few_documents(metrics):
        return []
    gains = [] if _read_gains(metrics) else conditioning.describe(metrics)
    return gains + overfitting.describe(overfitted)


def _read_gains(metrics: Mapping[str, float]) -> dict[str, dict[str, Gain]]:
    """Return the shuffled gains by term and split, of terms whose gains are known on all splits."""
    gains = {
        term: {
            split: Gain(*(metrics[name] for name in names))
            for split in SPLITS
            if (names := document_losses.shuffled_gain_names(term, split))[0] in metrics
        }
        for term in _NOUNS
    }
    return {term: by_split for term, by_split in gains.items() if len(by_split) == len(SPLITS)}


def _describe_few_documents(metrics: Mapping[str, float]) -> str:
    # The logs of earlier versions do not have the number of documents.
    count = metrics.get(document_losses.count_name("heldout"), MIN_DOCUMENTS)
    if count >= MIN_DOCUMENTS:
        return ""
    noun = "document is" if count == 1 else "documents are"
    return (
        f"{count:.0f} held-out {noun} too few to tell; {MIN_DOCUMENTS} are needed. Give "
        "more documents, or raise source.heldout_fraction."
    )


def _at_highest_nfe(metrics: Mapping[str, float], name: str) -> float | None:
    found = {
        int(key.split("@")[1]): value
        for key, value in metrics.items()
        if key.split("@")[0] == name and "@" in key
    }
    return found[max(found)] if found else None


def _describe_collapse(metrics: Mapping[str, float]) -> str:
    real = metrics.get("reference_image_distance")
    alike = _at_highest_nfe(metrics, "image_distance")
    by_caption = _at_highest_nfe(metrics, "image_distance_captions")
    if not real or alike is None or by_caption is None:
        return ""
    if alike < MIN_DIVERSITY * real:
        return (
            f"images are all alike. Their mean distance is {alike / real:.0%} of that of real "
            "images. Lower optimizer.learning_rate, or train longer."
        )
    if by_caption < MIN_DIVERSITY * real:
        return (
            "images do not depend on the text: different captions give the same image. Their mean "
            f"distance with the same noise is {by_caption / real:.0%} of that of real images."
        )
    return ""


def _describe_mismatch(
    metrics: Mapping[str, float], gains: Mapping[str, Mapping[str, Gain]]
) -> str:
    match, chance = (metrics.get(f"reference_caption_match{end}") for end in ("", "_chance"))
    if match is None or chance is None or "image" not in gains:
        return ""
    if match > chance or chance > MAX_CHANCE:
        return ""
    if any(by_split["heldout"].is_relevant for by_split in gains.values()):
        return ""
    training = (
        "training documents are learned by heart"
        if gains["image"]["train"].is_relevant
        else "shuffled captions are as good as the right ones, also for training documents"
    )
    return (
        "captions do not match the images in the data. Documents with similar captions have no "
        f"more similar images than others ({match:.2f}, by chance up to {chance:.2f}), and "
        f"{training}. Check that each caption is with its own image."
    )


def _describe_independence(gains: Mapping[str, Mapping[str, Gain]]) -> str:
    for term, by_split in gains.items():
        generated, condition = _NOUNS[term]
        gain = by_split["train"]
        if not gain.is_relevant:
            return (
                f"{generated.lower()} do not depend on {condition} yet. Even for training "
                f"documents, the {condition} of other documents are as good as their own (gain "
                f"{gain.value:.1%}, 95 % interval {gain.low:.1%} to {gain.high:.1%}). Train "
                "longer, and check that texts and images belong together."
            )
    return ""


def _describe_overfitting(overfitted: Sequence[Overfitting]) -> str:
    if not overfitted:
        return ""
    first = overfitted[0]
    advice = (
        "Use the best checkpoint, with --config.checkpoint.use=best, or give more documents."
        if first.has_better_checkpoint
        else "The loss of text and images together still falls. Give more documents."
    )
    return (
        f"{first.term} is overfitted since step {first.since}. Its held-out loss was lowest at "
        f"step {first.best_step}. {advice}"
    )


def _describe_copies(metrics: Mapping[str, float]) -> str:
    rate = _at_highest_nfe(metrics, "memorization_rate_heldout")
    if rate is None or rate <= MAX_MEMORIZATION:
        return ""
    return (
        f"images are copies of training images. For held-out captions, {rate:.0%} of them are "
        "closer to a training image than 95 % of real held-out images are. Give more documents, "
        "or use the best checkpoint, with --config.checkpoint.use=best."
    )


def _describe_training_only(gains: Mapping[str, Mapping[str, Gain]]) -> str:
    for term, by_split in gains.items():
        generated, condition = _NOUNS[term]
        gain = by_split["heldout"]
        if gain.is_relevant:
            continue
        figures = f"held-out gain {gain.value:.1%}, 95 % interval {gain.low:.1%} to {gain.high:.1%}"
        if gain.value >= conditioning.MIN_GAIN:
            return (
                f"{generated.lower()} depend on {condition} in training documents. It is not "
                f"certain that they also do in held-out documents ({figures}). Train longer, or "
                "give more documents."
            )
        return (
            f"{generated.lower()} depend on {condition} in training documents only ({figures}). "
            "They are learned by heart, or the held-out documents show other things. Give more "
            "documents, or fewer steps."
        )
    return ""
