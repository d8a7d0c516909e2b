"""Front matter of Markdown pages: fields in YAML between `---`, or in TOML between `+++`."""

import re
import tomllib
from typing import Any

import yaml

_BLOCK = re.compile(
    r"\ufeff?(?P<fence>---|\+\+\+)[ \t]*\r?\n"
    r"(?P<fields>.*?)"
    r"^(?:(?P=fence)|\.\.\.)[ \t]*(?:\r?\n|\Z)",
    re.DOTALL | re.MULTILINE,
)
_MAX_CHARACTERS = 64 * 2**10


def split(page: str) -> tuple[dict[str, Any], str]:
    """Return the fields of a page's front matter, and the page without it.

    Only texts, and lists of texts, keep their values. All other values become None. A page that
    begins with `---` but has no fields after it, such as a horizontal rule, is returned whole.
    """
    block = _BLOCK.match(page)
    if block is None or len(block["fields"]) > _MAX_CHARACTERS:
        return {}, page
    try:
        if block["fence"] == "+++":
            values = tomllib.loads(block["fields"])
        else:
            # This loader reads all scalars as text.
            values = yaml.load(block["fields"], yaml.BaseLoader)
    except (tomllib.TOMLDecodeError, yaml.YAMLError, RecursionError, ValueError):
        return {}, page
    if not isinstance(values, dict) or not values:
        return {}, page
    return {str(key): _keep_text(value) for key, value in values.items()}, page[block.end() :]


def _keep_text(value: object) -> str | list[str] | None:
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return value
    return value if isinstance(value, str) else None
