"""Documents about emoji: captioned pictures, and several named pictures among words."""

import collections
import dataclasses
import functools
import pathlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from oneflow_jax import errors
from oneflow_jax.data import document, emoji_concepts, records, sentences, splits

ATTRIBUTION = emoji_concepts.ATTRIBUTION
CAPTION_TEMPLATES = sentences.CAPTION_TEMPLATES
parse_name = sentences.parse_name

_NUM_SPLIT_BUCKETS = 10  # one combination of names in ten
_MAX_TRIES = 1000  # draws before giving up on a combination of the wanted side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What documents to compose; two equal settings give the same bytes.

    Attributes:
      concepts: emoji in training, or None for all; held-out ones come on top (`emoji_concepts`).
      categories: Unicode categories to take them from.
      pixels: width and height of a picture.
      documents: how many in 'train'.
      held_out_documents: how many in each of the other splits.
      interleaved: share of documents with several pictures, 0 to 1.
      captions: forms of the documents with one picture.
      skin_tones: whether people come in all skin tones.
    """

    concepts: int | None = 64
    categories: tuple[str, ...] = ("Animals & Nature", "Food & Drink")
    pixels: int = 24
    documents: int = 10_000
    held_out_documents: int = 500
    interleaved: float = 0.5
    captions: tuple[str, ...] = sentences.CAPTION_TEMPLATES
    skin_tones: bool = False

    def __post_init__(self) -> None:
        """Refuses what no data set can be made of."""
        for field, least in (("pixels", 8), ("documents", 1), ("held_out_documents", 1)):
            if getattr(self, field) < least:
                value = getattr(self, field)
                raise errors.UserError(f"emoji: {field}={value}: give {least} or more")
        if not 0 <= self.interleaved <= 1:
            raise errors.UserError(f"emoji: interleaved={self.interleaved}: give a share, 0 to 1")
        odd = [form for form in self.captions if form not in sentences.CAPTION_TEMPLATES]
        if odd or not self.captions:
            forms = ", ".join(map(repr, sentences.CAPTION_TEMPLATES))
            raise errors.UserError(f"emoji: captions={odd}: choose from {forms}")

    @property
    def name(self) -> str:
        """A folder name that differs whenever the settings do."""
        amount = "all" if self.concepts is None else self.concepts
        digest = splits.hash_bucket(repr(self), 16**8)
        return f"{amount}_concepts_{self.pixels}px_{digest:08x}"

    def drawn(self) -> tuple[emoji_concepts.Concept, ...]:
        """Returns the emoji, drawn: those of training and those held out."""
        return emoji_concepts.load(self.pixels, self.concepts, self.categories, self.skin_tones)


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """The settings, as TFDS wants to have them."""

    settings: Settings = dataclasses.field(default_factory=Settings)

    def __str__(self) -> str:
        """The name alone: TFDS logs it whenever the data set is opened."""
        return self.name


class Emoji(tfds.core.GeneratorBasedBuilder):
    """Documents composed of emoji and sentences about them.

    Splits: 'train'; 'combinations', where names seen in training meet as they never did there;
    'heldout', whose emoji training never shows.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded. TFDS 4.9.10 would look for checksums by way of importlib_resources,
    # which it does not declare as a dependency.
    url_infos = None
    builder_config: Config

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
        del dl_manager  # Nothing is downloaded.
        settings = self.builder_config.settings
        drawn = settings.drawn()
        train = [concept for concept in drawn if not concept.held_out]
        held_out = [concept for concept in drawn if concept.held_out]
        if settings.interleaved and not _concept_groups(train):
            raise errors.UserError(
                f"emoji: concepts={settings.concepts} has no two of one kind; give more concepts, "
                "or interleaved=0"
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
            # One generator for each document: its content depends on its key alone.
            rng = random.Random(f"{seed}/{index}")
            several = split == "combinations" or rng.random() < settings.interleaved
            if several and groups:
                composed = _make_interleaved(rng, groups, _NAME_FILTERS[split])
            else:
                composed = _make_captioned(rng, concepts, settings.captions)
            yield f"{index:08d}", records.encode(composed)


def builder(data_dir: str | pathlib.Path, **settings: object) -> Emoji:
    """Returns the TFDS builder of emoji documents in `data_dir`; `settings` as in `Settings`."""
    chosen = Settings(
        **{
            key: tuple(value) if isinstance(value, list) else value
            for key, value in settings.items()
        }
    )
    config = Config(name=chosen.name, settings=chosen)
    return Emoji(data_dir=data_dir, config=config, file_format="array_record")


def is_held_out(names: Sequence[str]) -> bool:
    """Returns whether the names in this order are kept from training, as one in ten is."""
    return splits.hash_bucket(" | ".join(names), _NUM_SPLIT_BUCKETS) == 0


_NAME_FILTERS: dict[str, Callable[[Sequence[str]], bool]] = {
    "train": lambda names: not is_held_out(names),
    "combinations": is_held_out,
    "heldout": lambda names: True,
}


def _concept_groups(
    concepts: Sequence[emoji_concepts.Concept],
) -> list[list[emoji_concepts.Concept]]:
    """Returns concepts that can share a sentence: one category and one kind, at least two."""
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
    """Returns a document of 2 to 4 pictures; larger groups come more often."""
    for _ in range(_MAX_TRIES):
        group = rng.choices(groups, weights=[len(group) for group in groups])[0]
        template = rng.choice(_usable_templates(len(group)))
        chosen = rng.sample(group, sentences.num_names(template))
        if is_allowed([concept.name for concept in chosen]):
            return _make_document(template, chosen)
    raise errors.UserError("emoji: too few concepts for interleaved documents; give concepts=16 up")


@functools.cache
def _usable_templates(size: int) -> tuple[str, ...]:
    """Returns the forms that a group of `size` concepts has names for."""
    return tuple(
        template
        for template in sentences.INTERLEAVED_TEMPLATES
        if sentences.num_names(template) <= size
    )


def _make_document(template: str, concepts: Sequence[emoji_concepts.Concept]) -> document.Document:
    names = [concept.name for concept in concepts]
    return document.Document(
        tuple(
            document.Text(part) if isinstance(part, str) else document.Image(concepts[part].pixels)
            for part in sentences.render(template, names, concepts[0].kind)
        )
    )
