"""An image classifier that is trained only on the images of a data set and their labels.

The classifier has the two encoders of `contrastive`, as in CLIP. The image encoder gets
EfficientNet-Lite0 features and mean colors; the colors help because noise on small images misleads
EfficientNet. The text encoder gets bags of words, so it ignores word order. EfficientNet is not
trained: it runs once over each training image and its shifted, blurred and noisy copies. The copies
make the classifier robust to artifacts of generated images.

Because of the bags of words, the classifier can choose a label that it was not trained on, if it
was trained on the label's words: "noto fox" after "noto owl" and "twemoji fox".
"""

import dataclasses
import hashlib
import pathlib
import re
import zipfile
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, UInt8

from oneflow_jax.data import generated, sentences
from oneflow_jax.data.labels import LabeledImage
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import contrastive, image_set_distance, interleaved

COLOR_GRID_SIZE = 8
"""Rows and columns of the grid of mean colors."""

MAX_COPIES, MIN_COPIES, MAX_TRAIN_IMAGES = 32, 8, 16_000
"""Limits of the number of versions of each training image, the unchanged one included.

Each image has `MAX_COPIES` versions if that makes at most `MAX_TRAIN_IMAGES` in total, that is, for
up to 500 images. If there are more images, each has fewer versions, but at least `MIN_COPIES`.
"""

MAX_SHIFT, MAX_BLUR_STD, MAX_NOISE_STD = 1 / 12, 1 / 20, 40.0
"""Largest shift and blur std, as fractions of the side; largest noise std, in pixel values."""


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """A trained classifier: an image encoder and a text encoder.

    Attributes:
        labels: labels that the classifier chooses from.
        words: vocabulary of the noun phrases made from the labels; row i of `params["words"]` is
            the vector of word i.
        params: float32 parameters of both encoders, by name.
    """

    labels: tuple[str, ...]
    words: tuple[str, ...]
    params: contrastive.Params

    @classmethod
    def train(
        cls,
        images: Sequence[LabeledImage],
        seed: int = 0,
        *,
        more_labels: Sequence[str] = (),
        copies: int | None = None,
        steps: int = contrastive.NUM_STEPS,
    ) -> "Judge":
        """Train a classifier on images and labels; on one machine, the seed determines the result.

        Args:
            images: two or more images of one size with distinct labels.
            seed: RNG seed of the copies, the initial weights and the batches.
            more_labels: labels without images that `classify` may also choose.
            copies: number of versions of each image, the unchanged one included; the others are
                shifted, blurred and noisy. None selects the number by `MAX_COPIES`, `MIN_COPIES`
                and `MAX_TRAIN_IMAGES`.
            steps: number of optimizer steps.

        Raises:
            UserError: `images` has fewer than two entries, two labels are equal, or the package
                with EfficientNet is not installed.
        """
        labels = (*(image.label for image in images), *more_labels)
        if len(images) < 2 or len(set(labels)) < len(labels):
            raise UserError(
                f"images={len(images)}: the images are too few, or their labels are not distinct. "
                "Give two or more images with distinct labels."
            )
        if copies is None:
            copies = max(MIN_COPIES, min(MAX_COPIES, MAX_TRAIN_IMAGES // len(images)))
        rng = np.random.default_rng(seed)
        drawn = np.stack([image.pixels for image in images])
        rough = [drawn, *(augment(drawn, rng) for _ in range(copies - 1))]
        seen = np.stack([features(pictures) for pictures in rough], axis=1)
        phrases = [sentences.noun_phrase(label) for label in labels]
        words = tuple(sorted({word for phrase in phrases for word in _split_words(phrase)}))
        bags = _bag_of_words(phrases[: len(images)], words)
        return cls(labels, words, contrastive.train(seen, bags, rng, steps))

    def similarity(
        self, images: UInt8[np.ndarray, "n H W 3"], phrases: Sequence[str]
    ) -> Float[np.ndarray, "n m"]:
        """Return the cosine similarity of each image and each phrase, -1 to 1.

        Words that are not in the vocabulary are ignored; a phrase without any known word gets 0.
        """
        image_embeds = contrastive.encode_image(self.params, features(images))
        phrase_embeds = contrastive.encode_text(self.params, _bag_of_words(phrases, self.words))
        return np.asarray(image_embeds @ phrase_embeds.T)

    def classify(self, images: UInt8[np.ndarray, "n H W 3"]) -> list[str]:
        """Return, for each image, the label that matches best.

        The method can serve as an `interleaved.ImageClassifier`.
        """
        phrases = [sentences.noun_phrase(label) for label in self.labels]
        similarities = self.similarity(images, phrases)
        return [self.labels[best] for best in similarities.argmax(axis=1)]

    def save(self, path: pathlib.Path) -> None:
        """Write the classifier to a .npz file atomically."""
        draft = path.with_name(path.name + ".draft")
        with draft.open("wb") as file:
            np.savez(file, **{_LABELS_KEY: self.labels, _WORDS_KEY: self.words}, **self.params)
        draft.replace(path)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Judge":
        """Read a classifier that `save` wrote.

        Raises:
            UserError: the file does not exist or has another format.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            labels, words = (tuple(map(str, arrays.pop(key))) for key in (_LABELS_KEY, _WORDS_KEY))
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path}: not a classifier that `save` wrote ({error}). Delete the file; the next "
                "evaluation trains a new classifier."
            ) from error
        return cls(labels, words, arrays)


def hash_training_data(images: Sequence[LabeledImage]) -> str:
    """Return a hash of everything that determines a classifier: labels, images, EfficientNet."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(generated.describe_versions([image_set_distance.PACKAGE]).encode())
    for image in images:
        digest.update(repr((image.label, image.in_training, image.pixels.shape)).encode())
        digest.update(image.pixels.tobytes())
    return digest.hexdigest()


_LABELS_KEY, _WORDS_KEY = "judge/labels", "judge/words"


def features(images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n f"]:
    """Return the EfficientNet-Lite0 features and 8 x 8 mean colors (0 to 1) of each image.

    EfficientNet gets the images resized to `image_set_distance.INPUT_SIZE`.

    Raises:
        UserError: the package with EfficientNet is not installed, or the images are not uint8.
    """
    seen = image_set_distance.features(images)
    shape = (len(images), COLOR_GRID_SIZE, COLOR_GRID_SIZE, 3)
    colors = jax.image.resize(images.astype(np.float32) / 255, shape, "linear")
    return np.concatenate([seen, np.asarray(colors).reshape(len(images), -1)], axis=1)


def accuracy(
    classifier: interleaved.ImageClassifier, images: Sequence[LabeledImage], seed: int
) -> float:
    """Return the accuracy of `classifier`, 0 to 1, on one new augmented copy of each image.

    Some emoji look alike ("man bald" and "person bald"), so on all 1,898 emoji without skin tones
    no classifier can exceed 0.98.
    """
    shown = classify_copies(classifier, images, seed)
    return float(np.mean([a == image.label for a, image in zip(shown, images, strict=True)]))


def classify_copies(
    classifier: interleaved.ImageClassifier, images: Sequence[LabeledImage], seed: int
) -> Sequence[str]:
    """Return the labels that `classifier` gives to one new augmented copy of each image."""
    drawn = np.stack([image.pixels for image in images])
    return classifier(augment(drawn, np.random.default_rng(seed)))


def augment(
    images: UInt8[np.ndarray, "n H W 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "n H W 3"]:
    """Return a copy of each image with random shift (edge pixels are repeated), blur and noise."""
    from scipy import ndimage  # A slow import, which few evaluations need.

    side = min(images.shape[1:3])
    reach = round(side * MAX_SHIFT)
    copies = []
    for picture in images:
        padded = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        row, column = rng.integers(0, 2 * reach + 1, 2)
        moved = padded[row : row + picture.shape[0], column : column + picture.shape[1]]
        blur = rng.uniform(0, MAX_BLUR_STD * side)
        soft = ndimage.gaussian_filter(moved.astype(np.float32), (blur, blur, 0))
        copies.append(soft + rng.uniform(0, MAX_NOISE_STD) * rng.standard_normal(soft.shape))
    return np.clip(np.rint(copies), 0, 255).astype(np.uint8)


def _split_words(phrase: str) -> list[str]:
    """Split a phrase into lowercased words without punctuation."""
    return re.findall(r"[^\s,.:;]+", phrase.lower())


def _bag_of_words(phrases: Sequence[str], words: Sequence[str]) -> Float[np.ndarray, "m V"]:
    """Return the word frequencies of each phrase; unknown words are ignored."""
    place = {word: n for n, word in enumerate(words)}
    bags = np.zeros((len(phrases), len(words)), np.float32)
    for n, phrase in enumerate(phrases):
        known = [place[word] for word in _split_words(phrase) if word in place]
        np.add.at(bags[n], known, 1 / max(1, len(known)))
    return bags
