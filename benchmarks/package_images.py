"""Writes captioned images of a Debian package as a folder for configs/own.py (docs/own_data.md).

    apt-get download tuxpaint-stamps-default
    dpkg-deb -x tuxpaint-stamps-default_*.deb packages
    python -m benchmarks.package_images stamps packages FOLDER --documents 400

`stamps` are the photos and drawings of Tux Paint, with captions by people. Documents are taken in
the order of a hash of their names, so that a smaller number is a part of a larger one.
"""

import argparse
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator

from oneflow_jax.errors import UserError

STAMPS = pathlib.Path("usr/share/tuxpaint/stamps")
METADATA = "metadata.jsonl"

Pair = tuple[pathlib.Path, str]
"""An image and its caption."""


def main(argv: list[str] | None = None) -> None:
    """Copy the images, and write their captions as JSON lines."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("data", choices=[*SETS])
    flags.add_argument("packages", type=pathlib.Path, help="folder of the unpacked package")
    flags.add_argument("folder", type=pathlib.Path, help="folder to write")
    flags.add_argument("--documents", type=int, help="number of documents (default: all)")
    flags = flags.parse_args(argv)
    pairs = sorted(SETS[flags.data](flags.packages), key=lambda pair: _hash(pair[0].name))
    if not pairs:
        raise UserError(f"packages={flags.packages}: no images. Unpack the Debian package there.")
    chosen = pairs[: flags.documents]
    flags.folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, (image, caption) in enumerate(chosen):
        name = f"{index:05d}{image.suffix}"
        shutil.copyfile(image, flags.folder / name)
        lines.append(json.dumps({"caption": caption, "image": name}, ensure_ascii=False))
    (flags.folder / METADATA).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{flags.folder}: {len(chosen)} of {len(pairs)} images with captions.")


def find_stamps(packages: pathlib.Path) -> Iterator[Pair]:
    """Find images with a text file of the same name, whose first line is the English caption."""
    for image in sorted((packages / STAMPS).rglob("*.png")):
        path = image.with_suffix(".txt")
        if path.exists() and (lines := path.read_text("utf-8", errors="replace").splitlines()):
            yield image, lines[0].strip()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


SETS: dict[str, Callable[[pathlib.Path], Iterator[Pair]]] = {"stamps": find_stamps}

if __name__ == "__main__":
    main()
