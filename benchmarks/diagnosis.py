"""Checks the diagnosis on runs that were made to fail in known ways, and on good ones.

    make emoji-styles
    python -m benchmarks.diagnosis FOLDER
    python -m benchmarks.diagnosis FOLDER --runs good shuffled

Each run trains configs/own.py on a folder of captioned drawings of emoji. The benchmark reads the
diagnosis that the run prints at its end (docs/training.md#logs), and compares it with what is known
about the run. Finished runs are not repeated.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from benchmarks import report
from oneflow_jax.data import sentences, style_drawings

PIXELS = 32
HELDOUT_FRACTION = 0.3
"""Fraction of held-out documents; with it, runs with few names have enough for a diagnosis, too."""
SENTENCE = re.compile(r"Diagnosis: (.+)")

Pair = tuple[np.ndarray, str]
"""An image, uint8 `[H W 3]`, and its caption."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A run and what its diagnosis must say.

    Attributes:
        says: pattern of a right diagnosis.
        change: function from pairs and a random generator to the pairs of the run.
        concepts: number of names whose drawings are in the data.
        steps: number of training steps.
        settings: other changes of the configuration.
    """

    says: str
    change: Callable[[list[Pair], np.random.Generator], list[Pair]] = lambda pairs, rng: pairs
    concepts: int = 32
    steps: int = 900
    settings: Sequence[str] = ()


def shuffle_captions(pairs: list[Pair], rng: np.random.Generator) -> list[Pair]:
    """Give each image the caption of another one."""
    order = rng.permutation(len(pairs))
    return [(image, pairs[n][1]) for (image, _), n in zip(pairs, order, strict=True)]


def number_captions(pairs: list[Pair], rng: np.random.Generator) -> list[Pair]:
    """Replace captions by names of files, which say nothing about the image."""
    return [(image, f"img_{rng.integers(10_000):04d}") for image, _ in pairs]


def draw_noise(pairs: list[Pair], rng: np.random.Generator) -> list[Pair]:
    """Replace images by noise."""
    return [(rng.integers(0, 256, image.shape, np.uint8), text) for image, text in pairs]


INDEPENDENT = "do not depend on"
BY_HEART = r"overfitted|by heart|training documents only|copies"

CASES = {
    "good": Case("^good"),
    "good, few names": Case("^good", concepts=8),
    "good, mirrored": Case("^good", lambda pairs, rng: [(x[:, ::-1], text) for x, text in pairs]),
    "too short": Case(INDEPENDENT, steps=10),
    "learning rate too low": Case(INDEPENDENT, settings=["optimizer.learning_rate=1e-6"]),
    "learning rate too high": Case(
        rf"all alike|{INDEPENDENT}", settings=["optimizer.learning_rate=3.0"]
    ),
    "condition dropped": Case(
        INDEPENDENT,
        settings=[
            *("paradigm.cond_drop_prob=1.0", "paradigm.tasks.joint=0.0"),
            *("paradigm.tasks.own_slot_times=0.0", "paradigm.tasks.spans=0.0"),
            *("paradigm.tasks.scattered=0.0", "paradigm.tasks.text_to_image=0.5"),
            "paradigm.tasks.image_to_text=0.5",
        ],
    ),
    "12 documents": Case(rf"{BY_HEART}|too few to tell", lambda pairs, rng: pairs[::20][:12]),
    "captions shuffled": Case(rf"captions do not match|{INDEPENDENT}", shuffle_captions),
    "captions are file names": Case(
        rf"captions do not match|{INDEPENDENT}|{BY_HEART}", number_captions
    ),
    "one caption": Case(INDEPENDENT, lambda pairs, rng: [(x, "a drawing") for x, _ in pairs]),
    "one image": Case(
        rf"all alike|{INDEPENDENT}", lambda pairs, rng: [(pairs[0][0], text) for _, text in pairs]
    ),
    "images of noise": Case(rf"captions do not match|{INDEPENDENT}|{BY_HEART}", draw_noise),
}
"""Three good runs, and ten bad ones."""


def main(argv: list[str] | None = None) -> dict[str, dict[str, object]]:
    """Train what is missing, print the table, and return the results by run."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("folder", type=pathlib.Path, help="folder for images and runs")
    flags.add_argument("--runs", nargs="+", default=[*CASES], choices=[*CASES], metavar="RUN")
    flags.add_argument("--styles", default="data/emoji_styles", help="folder of the npm packages")
    flags.add_argument("--steps", type=int, help="steps of each run, as a test")
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags, overrides = flags.parse_known_args(argv)
    results: dict[str, dict[str, object]] = {}
    for name in flags.runs:
        case, folder = CASES[name], flags.folder / re.sub(r"\W+", "_", name)
        write_documents(folder / "data", case, pathlib.Path(flags.styles))
        sentence = run(folder, case, flags.steps or case.steps, overrides)
        results[name] = {"diagnosis": sentence, "right": bool(re.search(case.says, sentence))}
        verdict = "right" if results[name]["right"] else "WRONG"
        report.print_table(name, [(verdict, sentence)])
    report.save_json(flags.json, results)
    return results


def write_documents(folder: pathlib.Path, case: Case, styles: pathlib.Path) -> None:
    """Write the captioned images of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = style_drawings.load(styles, PIXELS, count=case.concepts)
    pairs = [
        (one.pixels, sentences.noun_phrase(one.name)) for one in drawings if not one.name_held_out
    ]
    lines = []
    for number, (image, text) in enumerate(case.change(pairs, np.random.default_rng(0))):
        name = f"{number:04d}.png"
        Image.fromarray(np.ascontiguousarray(image)).save(folder / name)
        lines.append(json.dumps({"document": [{"text": f"{text}:"}, {"image": name}]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(folder: pathlib.Path, case: Case, steps: int, overrides: Sequence[str]) -> str:
    """Train, unless the run is finished; return its last diagnosis."""
    output = folder / "output.txt"
    if not output.exists():
        command = [sys.executable, "-m", "oneflow_jax", "train", "--config=own"]
        command += [f"--config.source.path={folder / 'data'}", f"--workdir={folder / 'run'}"]
        command.append(f"--config.source.heldout_fraction={HELDOUT_FRACTION}")
        command += [f"--config.steps={steps}", *(f"--config.{one}" for one in case.settings)]
        done = subprocess.run([*command, *overrides], capture_output=True, text=True)
        text = done.stdout + done.stderr
        if done.returncode == 0:
            output.write_text(text)
    else:
        text = output.read_text()
    found = SENTENCE.findall(text)
    return found[-1] if found else f"no diagnosis; the run ended with: {text.strip()[-300:]}"


if __name__ == "__main__":
    main()
