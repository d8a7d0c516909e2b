"""Documents as Markdown, with image files beside it."""

import itertools
import pathlib
import re
from collections.abc import Sequence

import PIL.Image

from oneflow_jax.data.document import Gap

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|])")
"""Characters with a meaning in Markdown."""


def write(path: pathlib.Path, parts: Sequence[str | PIL.Image.Image | Gap]) -> None:
    """Write the parts as paragraphs, and each image as a PNG file in the folder NAME_images."""
    folder = path.with_name(f"{path.stem}_images")
    numbers = itertools.count(1)
    paragraphs = []
    for part in parts:
        if isinstance(part, PIL.Image.Image):
            folder.mkdir(exist_ok=True)
            name = f"{next(numbers)}.png"
            part.save(folder / name)
            paragraphs.append(f"![{name}](<{folder.name}/{name}>)")
        else:
            paragraphs.append(SPECIAL.sub(r"\\\1", str(part)))
    path.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
