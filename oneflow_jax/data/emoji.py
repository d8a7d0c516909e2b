"""Emoji data set: captioned images, and interleaved documents with several named images."""

import collections
import dataclasses
import functools
import pathlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from oneflow_jax import errors
from oneflow_jax.data import document, emoji_concepts, generated, records, sentences, splits

ATTRIBUTION = emoji_concepts.ATTRIBUTION
CAPTION_TEMPLATES = sentences.CAPTION_TEMPLATES
parse_name = sentences.parse_name

_NUM_SPLIT_BUCKETS = 10  # one combination of names in ten is held out
_MAX_TRIES = 1000  # maximum number of combinations of names to sample before giving up


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the data set. With equal package versions, equal settings give equal bytes.

    Attributes:
      concepts: number of emoji in training, or None for all. Held-out emoji come in addition
        (see `emoji_concepts`).
      categories: Unicode categories of the emoji.
      pixels: width and height of an image.
      documents: number of documents in 'train'.
      held_out_documents: number of documents in each of the other splits.
      interleaved: fraction of documents with several images, 0 to 1.
      captions: templates of the documents with one image.
      skin_tones: whether to include all skin tones of people.
      names: names of the emoji in training; `concepts` must then be None. () for those of
        `concepts`.
    """

    concepts: int | None = 64
    categories: tuple[str, ...] = ("Animals & Nature", "Food & Drink")
    pixels: int = 24
    documents: int = 10_000
    held_out_documents: int = 500
    interleaved: float = 0.5
    captions: tuple[str, ...] = sentences.CAPTION_TEMPLATES
    skin_tones: bool = False
    names: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Check that the values are in range."""
        for field, least in (("pixels", 8), ("documents", 1), ("held_out_documents", 1)):
            errors.check_at_least(f"emoji: {field}", getattr(self, field), least)
        errors.check_fraction("emoji: interleaved", self.interleaved)
        odd = [form for form in self.captions if form not in sentences.CAPTION_TEMPLATES]
        if odd or not self.captions:
            forms = ", ".join(map(repr, sentences.CAPTION_TEMPLATES))
            raise errors.UserError(f"emoji: captions={odd}: invalid. Choose from {forms}.")

    @property
    def name(self) -> str:
        """Folder name that is unique to the settings."""
        amount = "all" if self.concepts is None else self.concepts
        # Settings without names have the same folder name as before this field was added.
        digest = splits.hash_bucket(repr(self) + repr(self.names) * bool(self.names), 16**8)
        return f"{amount}_concepts_{self.pixels}px_{digest:08x}"

    def describe_packages(self) -> str:
        """Return the versions of the packages that determine the documents."""
        return generated.describe_versions(emoji_concepts.PACKAGES)

    def list_names(self) -> tuple[str, ...]:
        """Return the names of the emoji of the training split, without rendering them."""
        chosen = emoji_concepts.select(self.concepts, self.categories, self.skin_tones, self.names)
        return tuple(entry.name for entry in chosen if not entry.held_out)

    def load_concepts(self) -> tuple[emoji_concepts.Concept, ...]:
        """Render the emoji of the training split and the held-out emoji."""
        return emoji_concepts.load(
            self.pixels, self.concepts, self.categories, self.skin_tones, self.names
        )


class Emoji(tfds.core.GeneratorBasedBuilder):
    """Documents composed of emoji and sentences about them.

    Splits:
        'train': training.
        'combinations': emoji of the training split, in combinations that do not occur in training.
        'heldout': emoji that do not occur in training.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded. Without this line TFDS 4.9.10 would import importlib_resources to look
    # up checksums, and TFDS does not declare this dependency.
    url_infos = None
    builder_config: generated.Config

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Emoji with captions and interleaved documents. {ATTRIBUTION}",
            features=records.features(),
            homepage="https://openmoji.org",
            license=emoji_concepts.LICENSE,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager  # Unused: nothing is downloaded.
        settings = self.builder_config.settings
        drawn = settings.load_concepts()
        train = [concept for concept in drawn if not concept.held_out]
        held_out = [concept for concept in drawn if concept.held_out]
        if settings.interleaved and not _concept_groups(train):
            raise errors.UserError(
                f"emoji: concepts={settings.concepts}: no two concepts are of the same kind. "
                "Give more concepts, or interleaved=0."
            )
        generate = self._generate_examples
        generators = {"train": generate("train", train)}
        if held_out:
            generators["heldout"] = generate("heldout", held_out)
        if settings.interleaved:
            generators["combinations"] = generate("combinations", train)
        return generators

    def _generate_examples(
        self, split: str, concepts: Sequence[emoji_concepts.Concept]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        settings = self.builder_config.settings
        count = settings.documents if split == "train" else settings.held_out_documents
        groups = _concept_groups(concepts)
        seed = f"{settings.name}/{split}"
        for index in range(count):
            # Each document has its own RNG. The content of a document thus depends only on its key.
            rng = random.Random(f"{seed}/{index}")
            several = split == "combinations" or rng.random() < settings.interleaved
            if several and groups:
                composed = _make_interleaved(rng, groups, functools.partial(is_allowed, split))
            else:
                composed = _make_captioned(rng, concepts, settings.captions)
            yield f"{index:08d}", records.encode(composed)


def builder(data_dir: str | pathlib.Path, **settings: object) -> Emoji:
    """Return the TFDS builder of the data set in `data_dir`. Settings are fields of `Settings`."""
    return generated.make_builder(Emoji, Settings, data_dir, settings)


def is_held_out(names: Sequence[str]) -> bool:
    """Return whether an ordered combination of names is held out; one in ten is."""
    return splits.hash_bucket(" | ".join(names), _NUM_SPLIT_BUCKETS) == 0


def is_allowed(split: str, names: Sequence[str]) -> bool:
    """Return whether documents of a split may combine these names in this order."""
    return split == "heldout" or is_held_out(names) == (split == "combinations")


def _concept_groups(
    concepts: Sequence[emoji_concepts.Concept],
) -> list[list[emoji_concepts.Concept]]:
    """Group concepts by category and kind; return the groups of at least two concepts."""
    groups = collections.defaultdict(list)
    for concept in concepts:
        groups[concept.category, concept.kind].append(concept)
    return [group for group in groups.values() if len(group) > 1]


def _make_captioned(
    rng: random.Random, concepts: Sequence[emoji_concepts.Concept], captions: Sequence[str]
) -> document.Document:
    return _make_document(rng.choice(captions), [rng.choice(concepts)])


def _make_interleaved(
    rng: random.Random,
    groups: Sequence[Sequence[emoji_concepts.Concept]],
    is_allowed: Callable[[Sequence[str]], bool],
) -> document.Document:
    """Compose a document with 2 to 4 images of one group.

    The probability of a group is proportional to its size.
    """
    for _ in range(_MAX_TRIES):
        group = rng.choices(groups, weights=[len(group) for group in groups])[0]
        template = rng.choice(sentences.interleaved_templates(len(group)))
        chosen = rng.sample(group, sentences.num_names(template))
        if is_allowed([concept.name for concept in chosen]):
            return _make_document(template, chosen)
    raise errors.UserError(
        "emoji: too few concepts for interleaved documents. Give concepts=16 or more."
    )


def _make_document(template: str, concepts: Sequence[emoji_concepts.Concept]) -> document.Document:
    names = [concept.name for concept in concepts]
    return document.Document(
        tuple(
            document.Text(part) if isinstance(part, str) else document.Image(concepts[part].pixels)
            for part in sentences.render(template, names, concepts[0].kind)
        )
    )
