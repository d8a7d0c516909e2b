"""Small custom data sets."""

import io
import json

import numpy as np
from PIL import Image

from oneflow_jax.data.custom.reader import RawImage, Settings


def png(color="red", size=(6, 4), image_format="PNG", mode="RGB"):
    file = io.BytesIO()
    Image.new("RGB", size, color).convert(mode).save(file, image_format)
    return file.getvalue()


def settings(path, **changes):
    return Settings(path=str(path), **{"pixels": 4, "heldout_fraction": 0.3} | changes)


def read_all(reader, config):
    """Return all documents of a reader, unit by unit."""
    return [raw for unit in reader.list_units(config) for raw in reader.read(config, unit)]


def describe_parts(raw):
    """Describe parts as strings: text, <name of an image>, or [reason of a fault]."""
    if raw.error is not None:
        return [f"[{raw.error.reason}]"]
    return [
        part
        if isinstance(part, str)
        else part.decode()
        if isinstance(part, bytes)
        else f"<{part.name}>"
        if isinstance(part, RawImage)
        else f"[{part.reason}]"
        for part in raw.parts
    ]


def write_files(folder, files):
    """Write files to a folder; `files` maps relative paths to bytes or text."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_jsonl(folder, count=40):
    """Write a folder with a JSON lines file of distinct texts and images."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "documents.jsonl").open("w") as file:
        for n in range(count):
            rng = np.random.default_rng(n)
            pixels = rng.integers(0, 256, (5, 5, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}.png")
            parts = [{"text": f"picture number {n}"}, {"image": f"{n}.png"}]
            file.write(json.dumps({"document": parts}) + "\n")
    return folder
