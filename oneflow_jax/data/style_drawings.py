"""Drawings of emoji in several styles, and the choice of (name, style) pairs to hold out."""

import collections
import dataclasses
import pathlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from oneflow_jax import errors
from oneflow_jax.data import emoji_concepts, image_io, splits, style_packages

CATEGORIES = tuple(
    category for category in emoji_concepts.CATEGORIES if category not in ("Flags", "People & Body")
)
"""Categories of which several styles have drawings: all categories but flags and people."""

_NUM_PAIR_BUCKETS = 8  # one pair of a name and a style in eight is held out


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """One emoji name drawn in one style.

    Attributes:
        name: CLDR short name, in lower case.
        style: name of the style; one of `style_packages.NAMES`.
        category: Unicode category.
        kind: singular noun for the emoji in sentences, such as 'animal'.
        name_held_out: whether no drawing of the name is in training.
        pair_held_out: whether this pair of name and style is excluded from training. Other styles
            of the name and other names of the style are in training.
        keywords: CLDR keywords that are not part of the name; may be empty.
        pixels: RGB image on white.
    """

    name: str
    style: str
    category: str
    kind: str
    name_held_out: bool
    pair_held_out: bool
    keywords: tuple[str, ...]
    pixels: UInt8[np.ndarray, "n n 3"]

    @property
    def in_training(self) -> bool:
        """Whether the drawing is in the training split."""
        return not (self.name_held_out or self.pair_held_out)

    @property
    def label(self) -> str:
        """Name with the style, such as "noto fox"."""
        return f"{self.style} {self.name}"


def load(
    folder: pathlib.Path,
    pixels: int,
    *,
    count: int | None = None,
    categories: Collection[str] = CATEGORIES,
    styles: Sequence[str] = style_packages.NAMES,
    min_styles: int = 5,
) -> tuple[Drawing, ...]:
    """Render the drawings of all names that at least `min_styles` styles have.

    Args:
        folder: folder with the npm packages.
        pixels: width and height of an image.
        count: number of names for training, or None for all. Names in `emoji_concepts.FREQUENT`
            are taken first, and then all others in Unicode order. For every nine names for
            training, one held-out name is added.
        categories: Unicode categories to choose from.
        styles: names of the styles.
        min_styles: a name is left out if fewer styles than this number have a drawing of it.

    Returns:
        The drawings, grouped by name. Each group is in the order of `style_packages.STYLES`.

    Raises:
        UserError: a value is out of range, or a package is not in the folder.
    """
    for name in styles:
        errors.check_one_of("emoji_styles: style", name, style_packages.NAMES)
    errors.check_between("emoji_styles: min_styles", min_styles, 2, max(2, len(styles)))
    svgs = {
        style.name: style_packages.read_svgs(folder, style)
        for style in style_packages.STYLES
        if style.name in styles
    }
    keywords = style_packages.read_keywords(folder)
    images_by_entry = {
        entry: _find_svgs(entry, svgs) for entry in emoji_concepts.list_entries(categories)
    }
    entries = [entry for entry, images in images_by_entry.items() if len(images) >= min_styles]
    return tuple(
        Drawing(
            name=entry.name,
            style=style,
            category=entry.category,
            kind=entry.kind,
            name_held_out=entry.held_out,
            pair_held_out=not entry.held_out
            and style in held_out_styles(entry.name, images_by_entry[entry]),
            keywords=_select_keywords(entry.name, keywords.get(entry.symbol.rstrip("\ufe0f"), ())),
            pixels=image_io.resize(emoji_concepts.render_svg(svg, pixels), pixels),
        )
        for entry in emoji_concepts.choose_entries(entries, count)
        for style, svg in images_by_entry[entry].items()
    )


def held_out_styles(name: str, styles: Collection[str]) -> set[str]:
    """Return the styles in which a name is excluded from training, about one style in eight.

    At least half of the styles stay in training. Except for this limit, the choice for a style does
    not depend on the other styles.
    """
    chosen = [
        style
        for style in sorted(styles)
        if splits.hash_bucket(f"pair {style} {name}", _NUM_PAIR_BUCKETS) == 0
    ]
    return set(chosen[: len(styles) // 2])


def group_by_kind(drawings: Sequence[Drawing]) -> list[dict[str, list[Drawing]]]:
    """Group drawings by category and kind, then by name; return the groups with several names."""
    groups: dict[tuple[str, str], dict[str, list[Drawing]]] = collections.defaultdict(
        lambda: collections.defaultdict(list)
    )
    for drawing in drawings:
        groups[drawing.category, drawing.kind][drawing.name].append(drawing)
    return [group for group in groups.values() if len(group) > 1]


def _find_svgs(
    entry: emoji_concepts.EmojiEntry, svgs: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Return a dict from each style that has an emoji to the SVG document of the emoji.

    Some packages use names from earlier versions of CLDR, such as "wolf face". Most of these names
    are in the Unicode standard, so this function searches for `unicode_name`, too.
    """
    names = [
        style_packages.normalize_name(name) for name in (entry.name, entry.unicode_name) if name
    ]
    svg_by_style = {
        style: next((images[name] for name in names if name in images), None)
        for style, images in svgs.items()
    }
    return {style: svg for style, svg in svg_by_style.items() if svg is not None}


def _select_keywords(name: str, keywords: Sequence[str]) -> tuple[str, ...]:
    """Return the keywords that are a single word and not part of the name."""
    words = set(name.split())
    plain = (word.lower() for word in keywords if word.isalpha())
    return tuple(dict.fromkeys(word for word in plain if word not in words))
