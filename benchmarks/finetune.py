"""Measures what fine-tuning the shipped model on images of three new subjects gives.

    make emoji-styles
    python -m benchmarks.finetune FOLDER --minutes 10

The subjects are emoji that the shipped model does not know, each with at most 20 images: drawings
in up to ten styles, and their mirror images. An image counts as right if the nearest of all images,
those of the start model's names and the new ones, has the name that was asked for. The fraction of
right images is measured for the new subjects, and for all names of the start model, before and
after.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

import oneflow_jax as of
from benchmarks.shipped import load_concepts, summarize
from oneflow_jax.data import sentences, style_drawings
from oneflow_jax.evaluation.nearest_image import NearestImage

SUBJECTS = {
    "robot": "Smileys & Emotion",
    "ghost": "Smileys & Emotion",
    "skull": "Smileys & Emotion",
}
"""Names of the new subjects, with their Unicode categories."""

IMAGES_PER_SUBJECT = 20
SAMPLES = 60
"""Number of images that are generated of the new subjects."""


class Picture(NamedTuple):
    """An image, uint8 `[H W 3]`, and its name; a `labels.LabeledImage`."""

    label: str
    pixels: np.ndarray


def main(argv: Sequence[str] | None = None) -> None:
    """Write the images, fine-tune, and print the three fractions with their intervals."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("folder", type=pathlib.Path, help="folder for the images and the run")
    flags.add_argument("--styles", default="data/emoji_styles", help="folder of the npm packages")
    flags.add_argument("--minutes", type=float, default=10.0, help="time to train (default: 10)")
    flags.add_argument("--steps", type=int, default=4, help="steps of Heun's method in sampling")
    flags, overrides = flags.parse_known_args(argv)
    start = of.load(of.PRETRAINED)
    new = write_images(flags.folder / "images", pathlib.Path(flags.styles), start.info().pixels)
    run = flags.folder / "run"
    command = [sys.executable, "-m", "oneflow_jax", "finetune", str(flags.folder / "images")]
    command += [f"--workdir={run}", f"--minutes={flags.minutes}", *overrides]
    subprocess.run(command, check=True)
    tuned = of.load(run)

    known = load_concepts(start)
    classifier = NearestImage.from_images([*known, *new])
    old_names = [one.label for one in known]
    asked = [list(SUBJECTS)[index % len(SUBJECTS)] for index in range(SAMPLES)]
    options = {"steps": flags.steps}
    rights = {
        "new subjects": score(tuned, asked, classifier, options),
        "old names before": score(start, old_names, classifier, options),
        "old names after": score(tuned, old_names, classifier, options),
    }
    summary = {name: summarize(right) for name, right in rights.items()}
    print(json.dumps(summary, indent=2))


def write_images(folder: pathlib.Path, styles: pathlib.Path, pixels: int) -> list[Picture]:
    """Write captioned images of the new subjects, in both reading orders; return the images."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = style_drawings.load(styles, pixels, categories=tuple(set(SUBJECTS.values())))
    images = []
    for subject in SUBJECTS:
        drawn = [one.pixels for one in drawings if one.name == subject]
        both = [*drawn, *(pixels[:, ::-1] for pixels in drawn)]
        images += [Picture(subject, each) for each in both[:IMAGES_PER_SUBJECT]]
    lines = []
    for number, image in enumerate(images):
        name = f"{number:02d}.png"
        Image.fromarray(np.ascontiguousarray(image.pixels)).save(folder / name)
        text = f"a picture of a {image.label}:", f"this is a {image.label}"
        lines.append({"document": [{"text": text[0]}, {"image": name}]})
        lines.append({"document": [{"image": name}, {"text": text[1]}]})
    text = "\n".join(map(json.dumps, lines)) + "\n"
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return images


def score(
    model: of.Model, names: Sequence[str], classifier: NearestImage, options: dict[str, int]
) -> np.ndarray:
    """Generate an image for each name; return which images look like the name, bool `[n]`."""
    prompts = [f"a picture of {sentences.noun_phrase(name)}: <image>" for name in names]
    documents = model.generate_batch(prompts, **options)
    found = classifier([np.asarray(document.images[0]) for document in documents])
    return np.array([one == name for one, name in zip(found, names, strict=True)])


if __name__ == "__main__":
    main()
