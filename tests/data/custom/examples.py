"""Small data of one's own."""

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
    return Settings(path=str(path), **{"pixels": 4, "held_out": 0.3} | changes)


def read_all(reader, config):
    """All that a reader finds, unit after unit."""
    return [raw for unit in reader.units(config) for raw in reader.read(config, unit)]


def describe_parts(raw):
    """Its parts, readable: words, <name of a picture>, or a reason in brackets."""
    if raw.fault is not None:
        return [f"[{raw.fault.reason}]"]
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


def write_jsonl(folder, count=40):
    """A folder of JSON lines with pictures, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "documents.jsonl").open("w") as file:
        for n in range(count):
            rng = np.random.default_rng(n)
            pixels = rng.integers(0, 256, (5, 5, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}.png")
            parts = [{"text": f"picture number {n}"}, {"image": f"{n}.png"}]
            file.write(json.dumps({"document": parts}) + "\n")
    return folder
