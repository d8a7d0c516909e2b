"""Tests of the HTTP interface: answers, streams and error messages."""

import base64
import io
import json

import numpy as np
import PIL.Image


def encode(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def decode(text):
    return PIL.Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def read_parts(document):
    return tuple(part.get("text") or decode(part["image"]) for part in document["parts"])


def read_events(response):
    """Return the name and the data of each server-sent event."""
    blocks = [block for block in response.text.split("\n\n") if block.startswith("event")]
    pairs = [block.removeprefix("event: ").split("\ndata: ") for block in blocks]
    return [(name, json.loads(data)) for name, data in pairs]


RED = PIL.Image.fromarray(np.full((4, 4, 3), (255, 0, 0), np.uint8))


def test_generate_answers_the_documents_of_the_model(client, model):
    options = {"samples": 2, "seed": 3, "image_guidance_scale": 2}
    answer = client.post("/v1/generate", json={"prompt": "red <image> and <text>", **options})
    assert answer.status_code == 200, answer.text
    documents = answer.json()["documents"]
    expected = model.generate("red <image> and <text>", **options)
    assert [read_parts(document) for document in documents] == [x.parts for x in expected]
    assert documents[0]["markup"].startswith("red <image:1> and")
    assert answer.json()["nfe"] == expected[0].nfe
    assert answer.json()["warnings"] == []
