"""Metrics of interleaved documents: do words and images of a generated document belong together?

Other benchmarks let a model write any text and images, so they need human raters or large models
to score the documents. The documents here consist of known concepts in known templates, so a
program can count all metrics exactly. Each metric is in the range 0 to 1:

    image_name_alignment  fraction of images that show the right name: the names in the text and
                          what the images show are aligned as two sequences. The place of an image
                          between words does not matter, since some models generate all words first
    count_accuracy        fraction of the documents that have as many images and names as their text
                          states ("three animals: ..."), among documents that state a number
    order_accuracy        fraction of the documents whose images show exactly the names, in order
                          and with repetitions, among documents with several images or names
    category_consistency  fraction of the documents that have images and whose images and names are
                          all of one kind, among documents whose text mentions a name or a kind
                          ("animals"); if the text states a kind, it must be this kind
    diversity             geometric mean of two ratios, each at most 1: the effective number of
                          names, exp(entropy), divided by that of real documents; and the same ratio
                          for templates
    interleaved_score     geometric mean of the five metrics above
    template_validity     fraction of documents whose text without the images matches a template
                          exactly, with names of one kind, and the right kind, count and keywords
    image_rate            fraction of documents with at least one image

`count_accuracy`, `order_accuracy` and `category_consistency` apply only to some documents, for
example those that state a count. Their denominator is the number of these documents among the
generated ones, or among equally many real ones, whichever is larger. So a model gains nothing by
stating no counts, or by generating single images only. The score is a geometric mean, so that no
component can make up for another: a model that always generates the same correct document, or
random images, scores near 0.

A name in a text may have a drawing style (`data.labels`). If a document's text names styles, "name"
means the style and the name in all metrics above, and images in another style are wrong. If the
text names no style, an image may show the name in any style. Keywords are removed from the text
before the metrics are computed.

An `ImageClassifier` labels what an image shows. Together with these metrics, report those of real
documents and of real documents with shuffled images (`compute_bounds`).
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from oneflow_jax.data import edits, labels, sentences, style_captions
from oneflow_jax.data.document import Document, Image
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import base, bootstrap

ImageClassifier = Callable[[UInt8[np.ndarray, "n H W 3"]], Sequence[str]]
"""A function that maps n images to n labels of what they show.

Examples are `Judge.classify` and `NearestImage`.
"""

COMPONENTS = (
    "image_name_alignment",
    "count_accuracy",
    "order_accuracy",
    "category_consistency",
    "diversity",
)
"""The metrics whose geometric mean is `interleaved_score`."""


@dataclasses.dataclass(frozen=True)
class DocumentScores:
    """Counts and outcomes of one document; `compute_metrics` computes the metrics from them.

    Attributes:
        names: labels in the text, in order of appearance.
        shown: label of what each image shows.
        num_aligned: number of images that show the right name; see `image_name_alignment`.
        count_correct: whether the stated count is right; None if the text states no count.
        order_correct: whether the images show exactly the names, in order; None if the document has
            at most one image and one name.
        category_consistent: whether all names and images are of one kind; None if the text mentions
            neither a name nor a kind.
        template: template that the text matches, or None.
    """

    names: tuple[str, ...]
    shown: tuple[str, ...]
    num_aligned: int
    count_correct: bool | None
    order_correct: bool | None
    category_consistent: bool | None
    template: str | None

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.shown)


def score_documents(
    documents: Sequence[Document],
    known: Sequence[labels.LabeledImage],
    classifier: ImageClassifier,
) -> list[DocumentScores]:
    """Score each document separately; `compute_metrics` computes the metrics from the scores.

    Args:
        documents: generated or real documents whose images have one size.
        known: all labeled images that documents can name or show.
        classifier: function that labels what images show; called once with the images of all
            documents.

    Raises:
        UserError: `classifier` does not return one of the known labels for each image.
    """
    groups = {image.name: (image.category, image.kind) for image in known}
    kinds = labels.list_kinds(known)
    looks = iter(_classify_images(_list_images(documents), classifier, kinds))
    scores = []
    for document in documents:
        shown = tuple(itertools.islice(looks, len(document.images())))
        words = style_captions.split_keywords(document)[0].text()
        names = tuple(sentences.extract_names(words, kinds))
        styled = any(labels.split_label(name)[0] for name in names)
        image_names = shown if styled else tuple(labels.split_label(look)[1] for look in shown)
        promise = sentences.parse_count(words)
        has_true_keywords = style_captions.has_true_keywords(document, names, known)
        blocks = edits.align(names, image_names).get_matching_blocks()
        several = max(len(names), len(image_names)) > 1
        scores.append(
            DocumentScores(
                names=names,
                shown=shown,
                num_aligned=sum(block.size for block in blocks),
                count_correct=len(names) == len(image_names) == promise if promise else None,
                order_correct=names == image_names if several else None,
                category_consistent=_is_consistent(words, names, image_names, groups),
                template=sentences.match_template(words, kinds) if has_true_keywords else None,
            )
        )
    return scores


def compute_metrics(
    generated: Sequence[DocumentScores], real: Sequence[DocumentScores]
) -> dict[str, float]:
    """Compute all metrics from the scores of the documents.

    Args:
        generated: scores of generated documents.
        real: scores of real documents, at least as many; the first `len(generated)` are compared.

    Raises:
        UserError: `generated` is empty, or `real` has fewer documents than `generated`.
    """
    if not 0 < len(generated) <= len(real):
        raise UserError(
            f"{len(generated)} generated and {len(real)} real documents: the metrics compare them "
            "with equally many real ones. Give one or more generated documents and at least as "
            "many real ones."
        )
    real = real[: len(generated)]
    pictures = sum(one.num_images for one in generated)
    metrics = {"image_name_alignment": sum(one.num_aligned for one in generated) / max(1, pictures)}
    fields = {
        "count_accuracy": "count_correct",
        "order_accuracy": "order_correct",
        "category_consistency": "category_consistent",
    }
    for name, field in fields.items():
        own, usual = (_defined_values(scores, field) for scores in (generated, real))
        metrics[name] = sum(own) / max(1, len(own), len(usual))
    metrics["diversity"] = float(
        np.sqrt(
            _relative_diversity(_all_names, generated, real)
            * _relative_diversity(_all_templates, generated, real)
        )
    )
    metrics["template_validity"] = base.fraction([one.template is not None for one in generated])
    metrics["image_rate"] = base.fraction([one.num_images > 0 for one in generated])
    metrics["interleaved_score"] = float(
        np.prod([metrics[name] for name in COMPONENTS]) ** (1 / len(COMPONENTS))
    )
    return metrics


def bootstrap_metrics(
    generated: Sequence[DocumentScores], real: Sequence[DocumentScores], seed: int = 0
) -> dict[str, Float[np.ndarray, "draws"]]:
    """Return bootstrap values of all metrics (`bootstrap.resample`).

    The real documents are resampled in the same way, since repeated documents reduce the diversity.
    """

    def compute(numbers: np.ndarray) -> list[float]:
        resampled = ([scores[n] for n in numbers] for scores in (generated, real))
        return list(compute_metrics(*resampled).values())

    draws = bootstrap.resample(compute, len(generated), seed)
    return dict(zip(compute_metrics(generated, real), draws.T, strict=True))


def compute_bounds(
    documents: Sequence[Document],
    known: Sequence[labels.LabeledImage],
    classifier: ImageClassifier,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Compute the metrics of real documents ("upper"), and after shuffling their images ("lower").

    "upper" differs from 1 only by errors of `classifier`. "lower" scores images that are unrelated
    to the text, but have the quality, number and diversity of real images.
    """
    real = score_documents(documents, known, classifier)
    chance = score_documents(shuffle_images(documents, 1.0, seed), known, classifier)
    return {"upper": compute_metrics(real, real), "lower": compute_metrics(chance, real)}


def shuffle_images(documents: Sequence[Document], fraction: float, seed: int) -> list[Document]:
    """Return the documents after a random fraction of all images has traded places.

    Every chosen image moves, unless only one is chosen. The image that replaces it may show the
    same name.
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
    return [pixels for document in documents for pixels in document.images()]


def _classify_images(
    images: Sequence[UInt8[np.ndarray, "H W 3"]],
    classifier: ImageClassifier,
    kinds: Mapping[str, str],
) -> Sequence[str]:
    """Return what each image shows; check that the classifier returns one known label per image."""
    predictions = classifier(np.stack(images)) if images else []
    odd = sorted(set(predictions) - set(kinds))
    if odd or len(predictions) != len(images):
        raise UserError(
            f"classifier: it returned {len(predictions)} labels for {len(images)} images; labels "
            f"that are not in `known`: {', '.join(odd[:3]) or 'none'}. The classifier must return "
            "one label per image, and `known` must have an image for each label."
        )
    return predictions


def _is_consistent(
    text: str,
    names: Sequence[str],
    predictions: Sequence[str],
    groups: Mapping[str, tuple[str, str]],
) -> bool | None:
    """Return whether all names and images are of one kind, and of the text's kind if it states one.

    The result is None if the text mentions neither a name nor a kind. Kinds are compared together
    with their categories, since a document is composed from one category and one kind.
    """
    stated_kind = text.split(":")[0].split()[1:] if sentences.parse_count(text) else []
    if not names and not stated_kind:
        return None
    shown_groups = {groups[labels.split_label(name)[1]] for name in (*names, *predictions)}
    plurals = [f"{kind}s" for _, kind in shown_groups]
    return bool(predictions) and len(shown_groups) == 1 and stated_kind in ([], plurals)


def _defined_values(scores: Sequence[DocumentScores], field: str) -> list[bool]:
    """Return the values of a field of all documents, without those that are None."""
    return [mark for mark in (getattr(one, field) for one in scores) if mark is not None]


def _relative_diversity(
    get_labels: Callable[[Sequence[DocumentScores]], list[str]],
    generated: Sequence[DocumentScores],
    real: Sequence[DocumentScores],
) -> float:
    """Return the effective number of labels, divided by its value for real documents; at most 1."""
    usual = base.diversity(get_labels(real), 1)
    return min(1.0, base.diversity(get_labels(generated), 1) / usual) if usual else 0.0


def _all_names(scores: Sequence[DocumentScores]) -> list[str]:
    return [name for one in scores for name in one.names]


def _all_templates(scores: Sequence[DocumentScores]) -> list[str]:
    return [one.template for one in scores if one.template]
