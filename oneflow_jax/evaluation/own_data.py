"""Metrics of a user's own data, whose texts and images the program does not understand.

A metric ends in the split of its documents, "heldout" or "train". The tasks generate the images of
documents from their texts, and the texts from their images:

    image_match           fraction of images that are closer to the image of their own document than
                          to that of a document with another text; 0.5 by chance
    nn_distance           median distance to the nearest training image
    nn_distance_real      the same for real held-out images
    nn_distance_ratio     nn_distance / nn_distance_real; 0 for copies (`precision_recall`)
    memorization_rate     fraction of images closer to a training image than 95 % of held-out ones
    token_accuracy        fraction of the tokens of the text that are right, at their place
    token_accuracy_copy   the same for the text of the nearest training image, without the document
    token_accuracy_mode   the same for the most frequent token of each place in training texts
    text_match            fraction of texts that are more similar to the text of their own document
                          than to another one; equal similarities count half
    text_copy_rate        fraction of texts that equal a training text

A third task generates images of several texts, each with the same noises. Distances are means of
absolute differences of pixels, 0 to 1; `reference_image_distance` is that of real documents.
Images that are not square are compared as squares with white margins (`OwnData.make_square`):

    image_distance           of different texts and different noises
    image_distance_captions  of different texts and the same noise; about 0 if texts have no effect
    image_distance_seeds     of the same text and different noises

The reference metrics also have `reference_text_loss_unigram`, the cross-entropy of text slots in
nats if only the frequencies of the tokens at each place of training texts are known.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from rapidfuzz.distance import Levenshtein

from oneflow_jax.data import image_io, shuffle
from oneflow_jax.data.document import Document
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import (
    base,
    image_set_distance,
    nearest_image,
    precision_recall,
    text_diversity,
    token_frequencies,
)

NUM_CAPTIONS, NUM_SEEDS = 8, 4
"""Number of texts, and of noises for each, of the task that compares distances of images."""

MIN_DISTANCE = 1e-6
"""Images with a smaller squared distance are the same image."""

MIN_SET_SIZE = 8
"""Minimum number of images for distances between sets of images."""

SHEET_ROWS = 12
"""Maximum number of held-out documents on the contact sheet."""


@dataclasses.dataclass(frozen=True)
class Example:
    """A document with text and images, and two prompts made from it.

    Attributes:
        document: the document.
        image_prompt: its texts, with gaps in place of the images.
        text_prompt: its images, with gaps in place of the texts.
    """

    document: Document
    image_prompt: Document
    text_prompt: Document


@dataclasses.dataclass(frozen=True, eq=False)
class OwnData:
    """Documents of a user, and functions of the run's tokenizer.

    Attributes:
        examples: examples of each split, "heldout" and "train".
        training: training documents to search for copies.
        encode: function that maps a text to its tokens.
        text_slots: function that maps a document to the ids of its text slots; None if the text
            loss of the model is not a cross-entropy of these slots.
        pixels: height and width of the images that are compared.
        full_metrics: whether to compute distances between sets of images.
    """

    examples: Mapping[str, Sequence[Example]]
    training: Sequence[Document]
    encode: Callable[[str], list[int]]
    text_slots: Callable[[Document], Int[np.ndarray, "n"]] | None
    pixels: int
    full_metrics: bool = False

    @functools.cached_property
    def train_features(self) -> Float[np.ndarray, "n f"]:
        """Features of the first image of each training document."""
        return _features([self.make_square(document) for document in self.training])

    @functools.cached_property
    def frequencies(self) -> token_frequencies.TokenFrequencies:
        """Frequencies of the tokens at each place of training texts."""
        return token_frequencies.TokenFrequencies.count(
            [self.encode(document.text()) for document in self.training]
        )

    def real_images(self, split: str) -> UInt8[np.ndarray, "n H W 3"]:
        """Return the first image of each example, as a square."""
        return _make_squares(self, [one.document for one in self.examples[split]])

    def make_square(self, document: Document) -> UInt8[np.ndarray, "n n 3"]:
        """Return the first image of a document as a square; black if it has no image.

        A model that ran out of slots generates no image. White margins complete an image that is
        not a square.
        """
        missing = np.zeros((self.pixels, self.pixels, 3), np.uint8)
        return image_io.resize(next(iter(document.images()), missing), self.pixels)

    def texts(self, split: str) -> list[str]:
        """Return the text of each example."""
        return [one.document.text() for one in self.examples[split]]


def make_suite(own: OwnData) -> base.EvalSuite:
    """Make the suite of a user's own data; a split without examples has no tasks."""
    if not own.training:
        return base.EvalSuite(())
    tasks = []
    for split, examples in own.examples.items():
        if examples:
            tasks += [
                base.EvalTask(
                    f"text_to_image_{split}",
                    tuple(one.image_prompt for one in examples),
                    functools.partial(_score_images, own, split),
                ),
                base.EvalTask(
                    f"image_to_text_{split}",
                    tuple(one.text_prompt for one in examples),
                    functools.partial(_score_texts, own, split),
                    is_captioning=True,
                ),
            ]
    if asked := _choose_captions(own):
        tasks.append(
            base.EvalTask(
                "image_distance",
                tuple(one.image_prompt for one in asked for _ in range(NUM_SEEDS)),
                functools.partial(_score_distances, own, len(asked)),
                noise_ids=tuple(range(NUM_SEEDS)) * len(asked),
            )
        )
    return base.EvalSuite(
        tuple(tasks),
        functools.partial(_measure_reference, own),
        functools.partial(_make_sheet, own),
    )


def mean_distance(images: UInt8[np.ndarray, "n H W 3"], pairs: Callable[[int, int], bool]) -> float:
    """Return the mean absolute difference of pixels of the pairs of images that `pairs` accepts."""
    values = images.reshape(len(images), -1).astype(np.float32) / 255
    chosen = [
        np.abs(values[i] - values[j]).mean()
        for i in range(len(values))
        for j in range(i)
        if pairs(i, j)
    ]
    return float(np.mean(chosen)) if chosen else 0.0


def token_accuracy(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Return the fraction of tokens that are equal at their place, of the longer text."""
    length = max(len(expected), len(actual))
    return sum(a == b for a, b in zip(expected, actual, strict=False)) / length if length else 1.0


def _score_images(own: OwnData, split: str, generated: Sequence[Document]) -> base.MetricResult:
    images = _make_squares(own, generated)
    ours, real = _features(images), _features(own.real_images(split))
    closer = [
        np.square(ours[n] - real[n]).sum() < np.square(ours[n] - real[partner]).sum()
        for n, partner in enumerate(shuffle.pair_by_text(own.texts(split)))
        if partner is not None
    ]
    distances = {
        f"nn_distance_{split}": _median_distance(ours, own.train_features),
        **_compare_with_heldout(own, split, ours),
    }
    result = base.merge(
        base.score_fractions({f"image_match_{split}": closer} if closer else {}),
        base.MetricResult({}, unbounded=distances),
    )
    if own.full_metrics and len(images) >= MIN_SET_SIZE:
        sets = image_set_distance.score(images, own.real_images(split))
        result = base.merge(result, _add_suffix(sets, split))
    return result


def _add_suffix(result: base.MetricResult, split: str) -> base.MetricResult:
    def rename(values: Mapping[str, float]) -> dict[str, float]:
        return {f"{name}_{split}": value for name, value in values.items()}

    return base.MetricResult(
        rename(result.metrics),
        unbounded=rename(result.unbounded),
        bootstrap=lambda seed: {
            f"{name}_{split}": values for name, values in result.bootstrap(seed).items()
        },
    )


def _compare_with_heldout(
    own: OwnData, split: str, features: Float[np.ndarray, "n f"]
) -> dict[str, float]:
    """Return distances to training images relative to real held-out images, if there are any."""
    if not own.examples["heldout"]:
        return {}
    heldout = _features(own.real_images("heldout"))
    real = {"nn_distance_real": _median_distance(heldout, own.train_features)}
    try:
        found = precision_recall.measure_memorization(features, own.train_features, heldout)
    except UserError:  # Half of the held-out images are copies of training images.
        return real
    return real | {
        f"nn_distance_ratio_{split}": found.nn_distance_ratio,
        f"memorization_rate_{split}": found.memorization_rate,
    }


def _median_distance(
    features: Float[np.ndarray, "n f"], training: Float[np.ndarray, "m f"]
) -> float:
    return float(np.median(precision_recall.nearest_distances(features, training)))


def _score_texts(own: OwnData, split: str, generated: Sequence[Document]) -> base.MetricResult:
    texts, written = own.texts(split), [document.text() for document in generated]
    tokens = [own.encode(text) for text in texts]
    copied = [own.encode(text) for text in _nearest_texts(own, split)]
    modes = [own.frequencies.most_frequent(len(expected)) for expected in tokens]
    guesses = {"": map(own.encode, written), "_copy": copied, "_mode": modes}
    accuracy = {
        f"token_accuracy{name}_{split}": float(np.mean(list(map(token_accuracy, tokens, guess))))
        for name, guess in guesses.items()
    }
    similarity = Levenshtein.normalized_similarity
    matches = []
    for n, partner in enumerate(shuffle.pair_by_text(texts)):
        if partner is not None:
            words = written[n].split()
            right, wrong = (similarity(words, texts[m].split()) for m in (n, partner))
            matches.append(0.5 * ((right > wrong) + (right >= wrong)))
    if matches:
        accuracy[f"text_match_{split}"] = float(np.mean(matches))
    copies = text_diversity.exact_matches(written, [one.text() for one in own.training])
    return base.merge(
        base.MetricResult(accuracy), base.score_fractions({f"text_copy_rate_{split}": copies})
    )


def _nearest_texts(own: OwnData, split: str) -> list[str]:
    """Return for each example the text of the training image that is most similar to its own."""
    found = []
    for one in own.examples[split]:
        features = nearest_image.features(own.make_square(one.document))
        distances = np.square(own.train_features - features).sum(axis=1)
        if split == "train":  # The nearest training image of a training document is its own.
            distances = np.where(distances < MIN_DISTANCE, np.inf, distances)
        found.append(own.training[int(distances.argmin())].text())
    return found


def _choose_captions(own: OwnData) -> list[Example]:
    """Choose examples with different texts, held out if possible, spread over the split."""
    for split in ("heldout", "train"):
        distinct = list({one.document.text(): one for one in own.examples[split]}.values())
        count = min(NUM_CAPTIONS, len(distinct))
        if count > 1:
            return [distinct[n * len(distinct) // count] for n in range(count)]
    return []


def _score_distances(
    own: OwnData, num_captions: int, generated: Sequence[Document]
) -> base.MetricResult:
    images = _make_squares(own, generated)
    captions = np.repeat(np.arange(num_captions), NUM_SEEDS)
    seeds = np.tile(np.arange(NUM_SEEDS), num_captions)

    def accept(same_caption: bool, same_seed: bool) -> Callable[[int, int], bool]:
        return lambda i, j: (
            (captions[i] == captions[j]) == same_caption and (seeds[i] == seeds[j]) == same_seed
        )

    return base.MetricResult(
        {},
        unbounded={
            "image_distance": mean_distance(images, accept(False, False)),
            "image_distance_captions": mean_distance(images, accept(False, True)),
            "image_distance_seeds": mean_distance(images, accept(True, False)),
        },
    )


def _measure_reference(own: OwnData) -> dict[str, float]:
    count = min(NUM_CAPTIONS * NUM_SEEDS, len(own.training))
    spread = [own.training[n * len(own.training) // count] for n in range(count)]
    distance = mean_distance(_make_squares(own, spread), lambda *_: True)
    metrics = {"reference_image_distance": distance}
    if own.text_slots is None:
        return metrics
    frequencies = token_frequencies.TokenFrequencies.count(list(map(own.text_slots, own.training)))
    for split, examples in own.examples.items():
        if examples:
            slots = [own.text_slots(one.document) for one in examples]
            metrics[f"reference_text_loss_unigram_{split}"] = frequencies.cross_entropy(slots)
    return metrics


def _make_sheet(own: OwnData, generated: base.DocumentsByTask) -> base.Sheet | None:
    """Make a sheet with a row for each of the first held-out documents."""
    split = "heldout" if own.examples["heldout"] else "train"
    drawn = generated.get(f"text_to_image_{split}")
    if not drawn:
        return None
    written = generated.get(f"image_to_text_{split}")
    count = min(SHEET_ROWS, len(drawn))
    images = _make_squares(own, drawn)
    cells: list[base.GalleryCell] = []
    for n in (m * len(drawn) // count for m in range(count)):
        document = own.examples[split][n].document
        image = images[n]
        shown = next(iter(drawn[n].images()), image)
        nearest = np.square(own.train_features - nearest_image.features(image)).sum(axis=1)
        training = own.training[int(nearest.argmin())]
        real = document.images()[0]
        cells += [(real, document.text(), ""), (shown, "", "")]
        cells.append((training.images()[0], training.text(), ""))
        if written:
            text = written[n].text()
            mark = "right" if text == document.text() else ""
            cells.append((real, text or "(no text)", mark))
    headers = ("document" if split == "train" else "held-out document", "image from its text")
    headers += ("nearest training image",)
    return base.Sheet(headers + (("text from its image",) if written else ()), tuple(cells))


def _make_squares(own: OwnData, documents: Sequence[Document]) -> UInt8[np.ndarray, "n H W 3"]:
    """Return the first image of each document, as a square (`OwnData.make_square`)."""
    return np.stack([own.make_square(document) for document in documents])


def _features(images: Sequence[UInt8[np.ndarray, "H W 3"]]) -> Float[np.ndarray, "n f"]:
    return np.stack([nearest_image.features(image) for image in images])
