"""The npm packages of the drawing styles: versions, licenses, and their SVG images.

Each package is an icon set in the format of Iconify. Its `icons.json` maps the name of each icon,
such as `red-apple`, to the body of an SVG image. `fetch_emoji_styles.fetch` downloads the packages
to one folder, and this module reads the `.tgz` files in it.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import tarfile
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from oneflow_jax import errors

KEYWORDS_PACKAGE = "cldr-annotations-full"
KEYWORDS_VERSION = "48.2.0"
KEYWORDS_LICENSE = "Unicode-3.0"
_KEYWORDS_FILE = f"{KEYWORDS_PACKAGE}-{KEYWORDS_VERSION}.tgz"

_FETCH_HINT = "Run `make emoji-styles`, or python -m oneflow_jax.data.fetch_emoji_styles {folder}."


@dataclasses.dataclass(frozen=True)
class Style:
    """The emoji of one artist or company.

    Attributes:
        name: name of the style in captions, such as "noto" in "a noto fox".
        icon_set: name of the icon set; the npm package is `@iconify-json/<icon_set>`.
        version: version of the npm package.
        author: artist or company that drew the images.
        license: SPDX identifier.
        homepage: address of the original images.
    """

    name: str
    icon_set: str
    version: str
    author: str
    license: str
    homepage: str

    @property
    def package(self) -> str:
        """Name and version of the npm package."""
        return f"@iconify-json/{self.icon_set}@{self.version}"

    @property
    def file_name(self) -> str:
        """Name of the file that `npm pack` writes."""
        return f"iconify-json-{self.icon_set}-{self.version}.tgz"


STYLES = (
    Style("noto", "noto", "1.2.9", "Google", "Apache-2.0", "github.com/googlefonts/noto-emoji"),
    Style(
        "noto-v1", "noto-v1", "1.2.5", "Google", "Apache-2.0", "github.com/googlefonts/noto-emoji"
    ),
    Style("twemoji", "twemoji", "1.2.5", "Twitter", "CC-BY-4.0", "github.com/jdecked/twemoji"),
    Style(
        "openmoji",
        "openmoji",
        "1.2.29",
        "OpenMoji",
        "CC-BY-SA-4.0",
        "github.com/hfg-gmuend/openmoji",
    ),
    Style(
        "fluent", "fluent-emoji", "1.2.7", "Microsoft", "MIT", "github.com/microsoft/fluentui-emoji"
    ),
    Style(
        "fluent-flat",
        "fluent-emoji-flat",
        "1.2.6",
        "Microsoft",
        "MIT",
        "github.com/microsoft/fluentui-emoji",
    ),
    Style("emojione", "emojione", "1.2.3", "EmojiOne", "CC-BY-4.0", "github.com/EmojiTwo/emojitwo"),
    Style(
        "emojione-v1",
        "emojione-v1",
        "1.2.3",
        "EmojiOne",
        "CC-BY-SA-4.0",
        "github.com/joypixels/emojione-legacy",
    ),
    Style("mozilla", "fxemoji", "1.2.2", "Mozilla", "Apache-2.0", "github.com/mozilla/fxemoji"),
    Style(
        "streamline",
        "streamline-emojis",
        "1.2.4",
        "Streamline",
        "CC-BY-4.0",
        "github.com/webalys-hq/streamline-vectors",
    ),
)
"""All styles, in the order in which `style_drawings.load` returns their drawings."""

NAMES = tuple(style.name for style in STYLES)

ATTRIBUTION = "; ".join(
    f"{style.name} by {style.author} ({style.license}, {style.homepage})" for style in STYLES
)
"""Authors and licenses of all styles, to be kept with the data."""


def read_svgs(folder: pathlib.Path, style: Style) -> dict[str, str]:
    """Read all images of a style.

    Args:
        folder: the folder that `fetch` filled.
        style: one of `STYLES`.

    Returns:
        A dict from the names and aliases of icons, as `normalize_name` returns them, to SVG
        documents.

    Raises:
        UserError: the package is not in the folder, or is damaged.
    """
    icon_set = _read_json(folder, style.file_name, "package/icons.json")
    size = {side: icon_set.get(side, 16) for side in ("width", "height")}
    svgs = {normalize_name(name): _to_svg(size | icon) for name, icon in icon_set["icons"].items()}
    for alias, target in icon_set.get("aliases", {}).items():
        # Skip aliases that rotate or flip their icon, since they are other emoji.
        if set(target) == {"parent"} and (parent := normalize_name(target["parent"])) in svgs:
            svgs.setdefault(normalize_name(alias), svgs[parent])
    return svgs


def read_keywords(folder: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """Read the English CLDR keywords of emoji, such as ("alpha", "mane", "roar") for a lion.

    Args:
        folder: the folder that `fetch` filled.

    Returns:
        A dict from the characters of each emoji to its keywords, without its short name.

    Raises:
        UserError: the package is not in the folder, or is damaged.
    """
    tree = _read_json(folder, _KEYWORDS_FILE, "package/annotations/en/annotations.json")
    return {
        symbol: tuple(word for word in entry["default"] if word not in entry.get("tts", ()))
        for symbol, entry in tree["annotations"]["annotations"].items()
        if "default" in entry
    }


def hash_packages(folder: pathlib.Path, styles: Collection[str]) -> list[str]:
    """Return the hash of the package of each of these styles, and of the package of keywords.

    Args:
        folder: the folder that `fetch` filled.
        styles: names of the styles.

    Raises:
        UserError: a package is not in the folder.
    """
    names = [style.file_name for style in STYLES if style.name in styles]
    hashes = []
    for name in (*names, _KEYWORDS_FILE):
        with _find_package(folder, name).open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes


def normalize_name(name: str) -> str:
    """Return only the letters and digits of a name, in lower case: "redapple" for "Red apple".

    Accents are dropped, because some packages write "pinata" for "piñata".
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "", plain.lower())


def _to_svg(icon: Mapping[str, Any]) -> str:
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {icon['width']} {icon['height']}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}">{icon["body"]}</svg>'
    )


def _read_json(folder: pathlib.Path, file_name: str, member: str) -> dict[str, Any]:
    """Read a JSON file in a package without extracting the package."""
    path = _find_package(folder, file_name)
    try:
        with tarfile.open(path) as package:
            file = package.extractfile(member)
            if file is None:
                raise KeyError(member)
            return json.load(file)
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError) as error:
        raise errors.UserError(
            f"{path}: not the expected npm package ({error}). Delete the file. "
            f"{_FETCH_HINT.format(folder=folder)}"
        ) from error


def _find_package(folder: pathlib.Path, file_name: str) -> pathlib.Path:
    path = folder / file_name
    if not path.is_file():
        hint = _FETCH_HINT.format(folder=folder)
        raise errors.UserError(
            f"source.path={folder}: there is no {file_name} in this folder. {hint}"
        )
    return path
