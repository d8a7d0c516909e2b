"""Interleaved documents: do words and pictures that were made together belong together?

No benchmark of free interleaved generation is about this: there, people or large models judge. Here
the documents speak of known things in known forms, so that all is counted. Each figure is 0 to 1:

    shown       share of pictures that show the name mentioned in their place: the names and what
                the pictures show are aligned, both in their order; where between the words they
                stand does not count, for some models make all words first
    counted     of documents that promise a number ("three animals: ..."), the share with so many
                pictures and so many names
    ordered     of documents with several pictures or names, the share whose pictures show the names
                one by one, repeated ones included
    agreed      of documents that speak of anything, the share with a picture whose pictures and
                names are all of one kind, which is the one that the words give if they do
    varied      how many names there would be if all that come came equally often, by the same of
                real documents, at most 1; likewise of forms; their geometric mean
    text_valid  share of documents whose words, pictures taken out, are one of the forms to the
                letter, with names, kind and count true
    pictured    share of documents with a picture

    interleaved  geometric mean of shown, counted, ordered, agreed and varied

`counted`, `ordered` and `agreed` are shares of the documents that they speak of, or of as many as
among equally many real ones if those are more: whoever promises nothing, or makes single pictures
alone, gains nothing. The mean is geometric because none of the five makes up for another: what is
always right about one thing, or varied at random, gets next to nothing.

What a picture shows is for somebody else to say: `ImageClassifier`. Report with these figures what
real documents get by the same, and real ones with their pictures exchanged: `compute_bounds`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from oneflow_jax.data import edits, emoji_concepts, sentences
from oneflow_jax.data.document import Document, Image
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import base, bootstrap

ImageClassifier = Callable[[UInt8[np.ndarray, "n H W 3"]], Sequence[str]]
"""The name of what each image shows: `Judge.classify`, or `emoji.nearest_neighbor` of each."""

COMPONENTS = ("shown", "counted", "ordered", "agreed", "varied")
"""The figures that `interleaved` is the mean of."""


@dataclasses.dataclass(frozen=True)
class DocumentScores:
    """What one document adds to the figures.

    Attributes:
        names: mentioned, in their order.
        pictures: how many.
        shown: how many of them show the name in their place.
        counted, ordered, agreed: whether it does; None if it does not speak of that.
        form: of its words, or None.
    """

    names: tuple[str, ...]
    pictures: int
    shown: int
    counted: bool | None
    ordered: bool | None
    agreed: bool | None
    form: str | None


def score_documents(
    documents: Sequence[Document],
    concepts: Sequence[emoji_concepts.Concept],
    classifier: ImageClassifier,
) -> list[DocumentScores]:
    """Marks of each document by itself.

    Args:
        documents: made, or real; their pictures of one size.
        concepts: all that can be named or shown.
        classifier: what pictures show; it gets those of all documents at once.

    Raises:
        UserError: `classifier` gives other things than one of the concepts' names for each picture.
    """
    groups = {concept.name: (concept.category, concept.kind) for concept in concepts}
    kinds = {concept.name: concept.kind for concept in concepts}
    looks = iter(_classify_images(_list_images(documents), classifier, kinds))
    found = []
    for document in documents:
        shown = tuple(itertools.islice(looks, len(document.pictures())))
        words = document.words()
        names = tuple(sentences.extract_names(words, kinds))
        promise = sentences.parse_count(words)
        blocks = edits.align(names, shown).get_matching_blocks()
        several = max(len(names), len(shown)) > 1
        found.append(
            DocumentScores(
                names=names,
                pictures=len(shown),
                shown=sum(block.size for block in blocks),
                counted=len(names) == len(shown) == promise if promise else None,
                ordered=names == shown if several else None,
                agreed=_is_consistent(words, names, shown, groups),
                form=sentences.match_template(words, kinds),
            )
        )
    return found


def compute_metrics(
    generated: Sequence[DocumentScores], real: Sequence[DocumentScores]
) -> dict[str, float]:
    """All figures of the documents with these marks.

    Args:
        generated: marks of what is scored.
        real: of real documents, at least as many; so many of them, from the first, are compared.

    Raises:
        UserError: too few real documents, or none made.
    """
    if not 0 < len(generated) <= len(real):
        raise UserError(
            f"{len(generated)} made and {len(real)} real documents: give as many real ones or "
            "more, for "
            "variety grows with the number."
        )
    real = real[: len(generated)]
    pictures = sum(one.pictures for one in generated)
    found = {"shown": sum(one.shown for one in generated) / max(1, pictures)}
    for name in ("counted", "ordered", "agreed"):
        own, usual = (_defined_values(some, name) for some in (generated, real))
        found[name] = sum(own) / max(1, len(own), len(usual))
    found["varied"] = float(
        np.sqrt(
            _relative_diversity(_all_names, generated, real)
            * _relative_diversity(_all_templates, generated, real)
        )
    )
    found["text_valid"] = base.fraction([one.form is not None for one in generated])
    found["pictured"] = base.fraction([one.pictures > 0 for one in generated])
    found["interleaved"] = float(
        np.prod([found[name] for name in COMPONENTS]) ** (1 / len(COMPONENTS))
    )
    return found


def bootstrap_metrics(
    generated: Sequence[DocumentScores], real: Sequence[DocumentScores], seed: int = 0
) -> dict[str, Float[np.ndarray, "draws"]]:
    """All figures with other documents: `bootstrap.resample`.

    A document drawn twice makes variety less, so the real ones are drawn likewise.
    """

    def told(numbers: np.ndarray) -> list[float]:
        again = ([some[n] for n in numbers] for some in (generated, real))
        return list(compute_metrics(*again).values())

    draws = bootstrap.resample(told, len(generated), seed)
    return dict(zip(compute_metrics(generated, real), draws.T, strict=True))


def compute_bounds(
    documents: Sequence[Document],
    concepts: Sequence[emoji_concepts.Concept],
    classifier: ImageClassifier,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Figures of real documents, "upper", and of the same with exchanged pictures, "lower".

    What "upper" lacks to 1 are mistakes of `classifier`. "lower" is what pictures get that know
    nothing of the words, though they are as good, as many and as varied as real ones.
    """
    real = score_documents(documents, concepts, classifier)
    chance = score_documents(shuffle_images(documents, 1.0, seed), concepts, classifier)
    return {"upper": compute_metrics(real, real), "lower": compute_metrics(chance, real)}


def shuffle_images(documents: Sequence[Document], fraction: float, seed: int) -> list[Document]:
    """The documents with a share of all their pictures in the places of one another.

    None of these stays where it was, unless it is the only one; another of the same name may come
    there.
    """
    pictures = _list_images(documents)
    count = round(fraction * len(pictures))
    chosen = np.random.default_rng(seed).permutation(len(pictures))[:count]
    order = np.arange(len(pictures))
    order[chosen] = np.roll(chosen, 1)
    others = iter(order)
    return [
        Document(
            tuple(
                Image(pictures[next(others)]) if isinstance(part, Image) else part
                for part in document.parts
            )
        )
        for document in documents
    ]


def _list_images(documents: Sequence[Document]) -> list[UInt8[np.ndarray, "H W 3"]]:
    return [pixels for document in documents for pixels in document.pictures()]


def _classify_images(
    images: Sequence[UInt8[np.ndarray, "H W 3"]],
    classifier: ImageClassifier,
    kinds: Mapping[str, str],
) -> Sequence[str]:
    """What each picture shows, if these are names that there are."""
    found = classifier(np.stack(images)) if images else []
    odd = sorted(set(found) - set(kinds))
    if odd or len(found) != len(images):
        raise UserError(
            f"look: {len(found)} names of {len(images)} pictures, {odd[:3]} no concepts: give "
            "the concepts that the judge knows, and one name for each picture."
        )
    return found


def _is_consistent(
    text: str,
    names: Sequence[str],
    predictions: Sequence[str],
    groups: Mapping[str, tuple[str, str]],
) -> bool | None:
    """Whether all is of one kind, and of that which the words give; None if they speak of none.

    Kinds are compared with their categories, as documents are composed of one category and kind.
    """
    said = text.split(":")[0].split()[1:] if sentences.parse_count(text) else []
    if not names and not said:
        return None
    found = {groups[name] for name in (*names, *predictions)}
    plurals = [f"{kind}s" for _, kind in found]
    return bool(predictions) and len(found) == 1 and said in ([], plurals)


def _defined_values(scores: Sequence[DocumentScores], field: str) -> list[bool]:
    """The marks by this name, of the documents that have one."""
    return [mark for mark in (getattr(one, field) for one in scores) if mark is not None]


def _relative_diversity(
    get_labels: Callable[[Sequence[DocumentScores]], list[str]],
    generated: Sequence[DocumentScores],
    real: Sequence[DocumentScores],
) -> float:
    """How many there would be if all came equally often, by as many of real ones, at most 1."""
    usual = base.diversity(get_labels(real), 1)
    return min(1.0, base.diversity(get_labels(generated), 1) / usual) if usual else 0.0


def _all_names(scores: Sequence[DocumentScores]) -> list[str]:
    return [name for one in scores for name in one.names]


def _all_templates(scores: Sequence[DocumentScores]) -> list[str]:
    return [one.form for one in scores if one.form]
