"""The data set `emoji_styles`: documents about emoji that several artists drew.

Each name has several images, one per style. A model that always copies the same image of a name is
therefore wrong for most styles. Two kinds of generalization can be measured: generalization to
names that are not in training, and to pairs of a name and a style ("a noto fox") that are not in
training although the name and the style are.
"""

import dataclasses
import pathlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from oneflow_jax import errors
from oneflow_jax.data import (
    document,
    emoji,
    emoji_concepts,
    generated,
    records,
    sentences,
    splits,
    style_captions,
    style_drawings,
    style_packages,
)

_MAX_TRIES = 1000  # maximum number of combinations of names to sample before giving up
_SAME_STYLE_FRACTION = 0.5  # fraction of interleaved documents with one style for all images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the data set. With equal package versions, equal settings give equal bytes.

    Attributes:
        path: folder with the npm packages (`make emoji-styles`).
        concepts: number of names in training, or None for all. Held-out names come in addition.
        categories: Unicode categories of the emoji.
        styles: names of the styles.
        min_styles: a name is left out if fewer styles than this number have a drawing of it.
        pixels: width and height of an image.
        documents: number of documents in 'train'.
        held_out_documents: number of documents in each of the other splits.
        interleaved: fraction of documents with several images, 0 to 1.
        styled: fraction of documents whose text names the styles, 0 to 1.
        keywords: fraction of the documents with one image whose text has CLDR keywords, 0 to 1.
    """

    path: str = "data/emoji_styles"
    concepts: int | None = 64
    categories: tuple[str, ...] = ("Animals & Nature", "Food & Drink")
    styles: tuple[str, ...] = style_packages.NAMES
    min_styles: int = 5
    pixels: int = 24
    documents: int = 20_000
    held_out_documents: int = 500
    interleaved: float = 0.5
    styled: float = 0.5
    keywords: float = 0.2

    def __post_init__(self) -> None:
        """Check that the values are in range."""
        for field, least in (("pixels", 8), ("documents", 1), ("held_out_documents", 1)):
            errors.check_at_least(f"emoji_styles: {field}", getattr(self, field), least)
        for field in ("interleaved", "styled", "keywords"):
            errors.check_fraction(f"emoji_styles: {field}", getattr(self, field))

    @property
    def name(self) -> str:
        """Folder name that is unique to the settings except `path`."""
        amount = "all" if self.concepts is None else self.concepts
        settings = repr(dataclasses.replace(self, path=""))
        digest = splits.hash_bucket(settings + repr(style_packages.STYLES), 16**8)
        return f"{amount}_concepts_{self.pixels}px_{digest:08x}"

    def describe_packages(self) -> str:
        """Return the versions of the Python packages and the hashes of the npm packages.

        Raises:
            UserError: an npm package is not in the folder.
        """
        python_packages = (*emoji_concepts.NAME_PACKAGES, emoji_concepts.RENDERER_PACKAGE)
        hashes = style_packages.hash_packages(pathlib.Path(self.path), self.styles)
        return f"{generated.describe_versions(python_packages)}, {', '.join(hashes)}"

    def load_drawings(self) -> tuple[style_drawings.Drawing, ...]:
        """Render all drawings, including held-out drawings."""
        return style_drawings.load(
            pathlib.Path(self.path),
            self.pixels,
            count=self.concepts,
            categories=self.categories,
            styles=self.styles,
            min_styles=self.min_styles,
        )


class EmojiStyles(tfds.core.GeneratorBasedBuilder):
    """Documents about emoji in several styles.

    Splits:
        'train': training.
        'combinations': drawings in training, in combinations of names that do not occur in
            training.
        'compositions': one image, and text that names its style. The pair of name and style is not
            in training.
        'heldout': names that are not in training.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded. Without this line TFDS 4.9.10 would import importlib_resources to look
    # up checksums, and TFDS does not declare this dependency.
    url_infos = None
    builder_config: generated.Config

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Emoji in several styles, with captions. {style_packages.ATTRIBUTION}",
            features=records.features(),
            homepage="https://iconify.design",
            license=", ".join(sorted({style.license for style in style_packages.STYLES})),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager  # Unused: nothing is downloaded.
        settings = self.builder_config.settings
        loaded = settings.load_drawings()
        train = [drawing for drawing in loaded if drawing.in_training]
        if settings.interleaved and not style_drawings.group_by_kind(train):
            raise errors.UserError(
                f"emoji_styles: concepts={settings.concepts}: no two concepts are of the same "
                "kind. Give more concepts, or interleaved=0."
            )
        generate = self._generate_examples
        generators = {"train": generate("train", train)}
        if heldout := [drawing for drawing in loaded if drawing.name_held_out]:
            generators["heldout"] = generate("heldout", heldout)
        if pairs := [drawing for drawing in loaded if drawing.pair_held_out]:
            generators["compositions"] = generate("compositions", pairs)
        if settings.interleaved:
            generators["combinations"] = generate("combinations", train)
        return generators

    def _generate_examples(
        self, split: str, available: Sequence[style_drawings.Drawing]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        settings = self.builder_config.settings
        count = settings.documents if split == "train" else settings.held_out_documents
        writer = _Writer(split, available, settings)
        for index in range(count):
            # Each document has its own RNG. The content of a document thus depends only on its key.
            rng = random.Random(f"{settings.name}/{split}/{index}")
            yield f"{index:08d}", records.encode(writer.write(rng))


def builder(data_dir: str | pathlib.Path, **settings: object) -> EmojiStyles:
    """Return the TFDS builder of the data set in `data_dir`. Settings are fields of `Settings`."""
    return generated.make_builder(EmojiStyles, Settings, data_dir, settings)


class _Writer:
    """Composes the documents of one split from the drawings that this split may show."""

    def __init__(
        self, split: str, available: Sequence[style_drawings.Drawing], settings: Settings
    ) -> None:
        self._split = split
        self._by_name: dict[str, list[style_drawings.Drawing]] = {}
        for drawing in available:
            self._by_name.setdefault(drawing.name, []).append(drawing)
        self._groups = style_drawings.group_by_kind(available)
        self._settings = settings

    def write(self, rng: random.Random) -> document.Document:
        """Compose one document."""
        several = self._split == "combinations" or (
            self._split != "compositions" and rng.random() < self._settings.interleaved
        )
        styled = self._split == "compositions" or rng.random() < self._settings.styled
        if several and self._groups:
            return self._write_interleaved(rng, styled)
        return self._write_captioned(rng, styled)

    def _write_captioned(self, rng: random.Random, styled: bool) -> document.Document:
        # Each name has the same probability, regardless of the number of its drawings.
        drawing = rng.choice(self._by_name[rng.choice([*self._by_name])])
        tagged = rng.random() < self._settings.keywords
        return style_captions.compose(
            rng.choice(sentences.CAPTION_TEMPLATES),
            [drawing],
            styled=styled,
            keywords=style_captions.sample_keywords(rng, drawing) if tagged else (),
        )

    def _write_interleaved(self, rng: random.Random, styled: bool) -> document.Document:
        """Compose a document with 2 to 4 images of one kind.

        The probability of a kind is proportional to its number of names.
        """
        for _ in range(_MAX_TRIES):
            group = rng.choices(self._groups, weights=[len(group) for group in self._groups])[0]
            template = rng.choice(sentences.interleaved_templates(len(group)))
            names = rng.sample([*group], sentences.num_names(template))
            if emoji.is_allowed(self._split, names):
                drawings = _choose_drawings(rng, [group[name] for name in names])
                return style_captions.compose(template, drawings, styled=styled)
        raise errors.UserError(
            "emoji_styles: too few concepts for interleaved documents. Give concepts=16 or more."
        )


def _choose_drawings(
    rng: random.Random, available: Sequence[Sequence[style_drawings.Drawing]]
) -> list[style_drawings.Drawing]:
    """Choose a drawing of each name.

    With a probability of 0.5, all drawings have one style, except for names that this style lacks.
    """
    chosen = [rng.choice(several) for several in available]
    if rng.random() < _SAME_STYLE_FRACTION:
        style = chosen[0].style
        chosen = [
            next((drawing for drawing in several if drawing.style == style), drawn)
            for several, drawn in zip(available, chosen, strict=True)
        ]
    return chosen
