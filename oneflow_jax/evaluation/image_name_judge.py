"""Which name fits a picture, by a judge that is trained on the pictures and their names alone.

Its two encoders are those of `contrastive`, as in CLIP: of a picture, by what EfficientNet-Lite0
sees in it and by its colors, which are there because noise on small pictures misleads that network;
of a phrase, by its words. The network stays as it is: it runs once over each picture, and over
copies that are shifted, blurred and noisy, so that the judge knows pictures that a model made.

Phrases are bags of words: the judge cannot tell two that differ in their order alone.
"""

import dataclasses
import pathlib
import re
import zipfile
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from oneflow_jax.data import emoji_concepts, sentences
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import contrastive, image_set_distance, interleaved

COLOR_GRID_SIZE = 8
"""Rows and columns of squares whose mean colors count."""

MAX_COPIES, MIN_COPIES, MAX_TRAIN_IMAGES = 32, 8, 16_000
"""Of each picture for training, the first as it is; fewer, but no less than so many, if all of them
would be more than that."""

MAX_SHIFT, MAX_BLUR_STD, MAX_NOISE_STD = 1 / 12, 1 / 20, 40.0
"""Most that a copy is shifted and blurred by (deviation), in sides; deviation of noise, of 255."""


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """Both encoders, trained.

    Attributes:
        names: of the pictures that it was trained on.
        words: of their phrases, each once; row i of `params["words"]` is the vector of word i.
        params: arrays by name, float32.
    """

    names: tuple[str, ...]
    words: tuple[str, ...]
    params: contrastive.Params

    @classmethod
    def train(
        cls,
        concepts: Sequence[emoji_concepts.Concept],
        seed: int = 0,
        *,
        copies: int | None = None,
        steps: int = contrastive.NUM_STEPS,
    ) -> "Judge":
        """Learns pictures and their names; the same seed gives the same judge on one machine.

        Args:
            concepts: two or more, of different names and one size.
            seed: of the copies, the first weights and the batches.
            copies: of each picture; None for as many as `MAX_COPIES` says.
            steps: of the optimizer.

        Raises:
            UserError: too few concepts, two of one name, or no network of features.
        """
        names = tuple(concept.name for concept in concepts)
        if len(names) < 2 or len(set(names)) < len(names):
            raise UserError(f"concepts={len(names)}: give two or more, each of another name.")
        if copies is None:
            copies = max(MIN_COPIES, min(MAX_COPIES, MAX_TRAIN_IMAGES // len(names)))
        rng = np.random.default_rng(seed)
        drawn = np.stack([concept.pixels for concept in concepts])
        rough = [drawn, *(augment(drawn, rng) for _ in range(copies - 1))]
        seen = np.stack([features(pictures) for pictures in rough], axis=1)
        phrases = [sentences.noun_phrase(name) for name in names]
        words = tuple(sorted({word for phrase in phrases for word in _split_words(phrase)}))
        bags = _bag_of_words(phrases, words)
        return cls(names, words, contrastive.train(seen, bags, rng, steps))

    def similarity(
        self, pictures: UInt8[np.ndarray, "n H W 3"], phrases: Sequence[str]
    ) -> Float[np.ndarray, "n m"]:
        """Cosine of each picture's vector and each phrase's, -1 to 1.

        Words that training had not count as nothing; it is 0 for phrases without any other.
        """
        looks = contrastive.encode_image(self.params, features(pictures))
        said = contrastive.encode_text(self.params, _bag_of_words(phrases, self.words))
        return np.asarray(looks @ said.T)

    def classify(self, pictures: UInt8[np.ndarray, "n H W 3"]) -> list[str]:
        """For each picture the best matching of the names that training had: a `Look`."""
        near = self.similarity(pictures, [sentences.noun_phrase(name) for name in self.names])
        return [self.names[best] for best in near.argmax(axis=1)]

    def save(self, path: pathlib.Path) -> None:
        """Writes it as a .npz file, which is never seen half written."""
        draft = path.with_name(path.name + ".draft")
        with draft.open("wb") as file:
            np.savez(file, **{_NAMES_KEY: self.names, _WORDS_KEY: self.words}, **self.params)
        draft.replace(path)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Judge":
        """Reads what `save` wrote.

        Raises:
            UserError: there is no such file, or it is another.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            names, words = (tuple(map(str, arrays.pop(key))) for key in (_NAMES_KEY, _WORDS_KEY))
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no judge that `save` wrote ({error}): train it.") from error
        return cls(names, words, arrays)


_NAMES_KEY, _WORDS_KEY = "judge/names", "judge/words"


def features(images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n f"]:
    """What EfficientNet-Lite0 sees in the pictures, enlarged, and 8 x 8 mean colors, 0 to 1.

    Raises:
        UserError: the network is not installed, or these are no uint8 pictures.
    """
    seen = image_set_distance.features(images)
    shape = (len(images), COLOR_GRID_SIZE, COLOR_GRID_SIZE, 3)
    colors = jax.image.resize(images.astype(np.float32) / 255, shape, "linear")
    return np.concatenate([seen, np.asarray(colors).reshape(len(images), -1)], axis=1)


def accuracy(
    classifier: interleaved.ImageClassifier, concepts: Sequence[emoji_concepts.Concept], seed: int
) -> float:
    """Share of new rough copies, one of each concept, of which `classifier` tells the name, 0 to 1.

    Some emoji are drawn alike ("man bald" and "person bald"): of all 1,898 without skin tones no
    judge gets more than 0.98.
    """
    drawn = np.stack([concept.pixels for concept in concepts])
    found = classifier(augment(drawn, np.random.default_rng(seed)))
    pairs = zip(found, concepts, strict=True)
    return float(np.mean([name == concept.name for name, concept in pairs]))


def augment(
    images: UInt8[np.ndarray, "n H W 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "n H W 3"]:
    """Copies, each shifted (its edge goes on), blurred, and with noise, all by random amounts."""
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
    """In lower case, without the punctuation of sentences."""
    return re.findall(r"[^\s,.:;]+", phrase.lower())


def _bag_of_words(phrases: Sequence[str], words: Sequence[str]) -> Float[np.ndarray, "m V"]:
    """How often each phrase has each word, by its length; words that are not known are left out."""
    place = {word: n for n, word in enumerate(words)}
    bags = np.zeros((len(phrases), len(words)), np.float32)
    for n, phrase in enumerate(phrases):
        known = [place[word] for word in _split_words(phrase) if word in place]
        np.add.at(bags[n], known, 1 / max(1, len(known)))
    return bags
