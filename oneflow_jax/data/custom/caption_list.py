"""Lists of captions without a header, and the `.txt` files that are tables of captions.

red.png#0<tab>a cat         Flickr8k.token.txt; `#0` is the number of the caption
red.png a cat               the delimiter is the character after the name of the image
red.png,a cat               a CSV file without a header
image,caption               a .txt file with the header of a CSV file, as in Flickr8k of Kaggle
"""

import csv
import re
from collections.abc import Iterator, Sequence

from oneflow_jax.data.custom import image_decode, pairs, record
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.sandbox import SandboxedFolder

MAX_TEXT_FILES = 100
"""Maximum number of text files without an image that `find_lists` opens."""

_MAX_LINE_BYTES = 4096
_DELIMITERS = ",;\t|"

_ENDINGS = "|".join(map(re.escape, image_decode.EXTENSIONS))
_NAME_FIRST = re.compile(
    rf'\ufeff?(?P<quote>"?)(?P<name>[^,;\t|"]*?(?:{_ENDINGS}))(?:#\d+)?(?P=quote)'
    r"(?P<delimiter>[,;\t| ])(?P<rest>.*\S)",
    re.IGNORECASE,
)
_CAPTION_NUMBER = re.compile(rf"((?:{_ENDINGS}))#\d+\s*", re.IGNORECASE)


def find_delimiter(line: str) -> str:
    """Return the delimiter of a line with an image file and its caption; "" for other lines."""
    found = _NAME_FIRST.match(line[:_MAX_LINE_BYTES])
    if found is None or found["rest"].lower().endswith(image_decode.EXTENSIONS):
        return ""
    return found["delimiter"]


def find_lists(folder: SandboxedFolder, names: Sequence[str]) -> list[str]:
    """Return the `.txt` files that are tables or lists of captions.

    Text files that belong to an image are not opened. If more than `MAX_TEXT_FILES` text files
    belong to no image, the text files are documents, and none is opened.
    """
    known = [name for name in names if name.lower().endswith(pairs.EXTENSIONS)]
    alone = [files[0] for files in pairs.group_names(known).values() if len(files) == 1]
    texts = [
        name
        for name in alone
        if name.lower().endswith(".txt") and not pairs.is_about_the_data(name)
    ]
    return (
        [name for name in texts if _is_list(folder, name)] if len(texts) <= MAX_TEXT_FILES else []
    )


def iter_rows(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    """Yield the cells of each line of a list; `#0` is removed from the name of the image.

    Raises:
        csv.Error: a line is malformed.
    """
    rows = (
        (line.strip().split(" ", 1) for line in lines)
        if delimiter == " "
        else csv.reader(
            lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else 0
        )
    )
    for row in rows:
        if any(row):
            yield [_CAPTION_NUMBER.sub(r"\1", row[0]).strip("\ufeff "), *row[1:]]
        else:
            yield []


def name_columns(count: int) -> list[str]:
    """Return `count` names of columns: "image", "caption", "column 3", "column 4" and so on."""
    return ["image", "caption", *(f"column {number}" for number in range(3, count + 1))][:count]


def _is_list(folder: SandboxedFolder, name: str) -> bool:
    try:
        with folder.open(name) as file:
            line = file.readline(_MAX_LINE_BYTES).decode("utf-8-sig", "replace")
    except (DataError, OSError):
        return False
    cells = line.strip().split(max(_DELIMITERS, key=line.count))
    has_header = any(map(record.is_image_name, cells)) and any(map(record.is_text_name, cells))
    return has_header or bool(find_delimiter(line))
