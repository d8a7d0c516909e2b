"""Documents and events of HTTP answers, for the tests of the server."""

import base64
import io
import json

import numpy as np
import PIL.Image

RED = PIL.Image.fromarray(np.full((4, 4, 3), (255, 0, 0), np.uint8))


def encode(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def decode(text):
    return PIL.Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def read_parts(document):
    return tuple(part["text"] if "text" in part else decode(part["image"]) for part in document)


def read_documents(answer):
    return [read_parts(document["parts"]) for document in answer["documents"]]


def read_events(lines):
    """Return the name and the data of each server-sent event, from the lines of a stream."""
    lines = [line for line in lines if line.startswith(("event: ", "data: "))]
    names = [line.removeprefix("event: ") for line in lines[::2]]
    data = [json.loads(line.removeprefix("data: ")) for line in lines[1::2]]
    return list(zip(names, data, strict=True))
