"""Model card: the README.md of an export, in the form of the Hugging Face Hub."""

import json
import logging
from collections.abc import Mapping

import ml_collections
from etils import epath

import oneflow_jax
from oneflow_jax.data import sources
from oneflow_jax.runtime import workdir

FILE = "README.md"

MARKER = (
    "<!-- Written by oneflow_jax --mode=export. Without this line the next export keeps it. -->"
)
"""Line of every card; a README.md without it was written by a person and is kept."""

FRONT_MATTER = """---
library_name: oneflow_jax
pipeline_tag: text-to-image
tags: [flow-matching, multimodal, interleaved, jax]
---"""

USE = """```python
import oneflow_jax as of

model = of.load("FOLDER")  # or of.load("hf://OWNER/NAME")
print(model.info())
```"""

UNKNOWN_LICENSE = (
    "The images and texts are not part of this project. Their licenses apply to what the model "
    "generates; add them here."
)

NOT_EVALUATED = "The run was not evaluated (`--mode=evaluate`)."


def write(
    config: ml_collections.ConfigDict, run_dir: epath.Path, output: epath.Path, parameters: int
) -> None:
    """Write the card of a run to an export, unless a person has written or edited the file.

    Args:
        config: the run's configuration.
        run_dir: the run's folder, whose `evaluation.json` has the metrics.
        output: the folder of the export.
        parameters: number of parameters.
    """
    path = output / FILE
    if path.exists() and MARKER not in path.read_text():
        logging.info("%s was not written by an export and is kept.", path)
        return
    evaluation = run_dir / workdir.EVALUATION
    metrics = json.loads(evaluation.read_text()) if evaluation.exists() else {}
    workdir.write_atomically(path, format_card(config, parameters, metrics))


def format_card(
    config: ml_collections.ConfigDict, parameters: int, metrics: Mapping[str, float]
) -> str:
    """Format the card: what the model is, how to use it, its data, its metrics, its training."""
    attribution = sources.list_attribution(config.source.name) or [UNKNOWN_LICENSE]
    rows = [f"| {name} | {value:.4g} |" for name, value in sorted(metrics.items())]
    shown = ["| metric | value |", "|---|---|", *rows] if rows else [NOT_EVALUATED]
    lines = [
        FRONT_MATTER,
        MARKER,
        "",
        f"# {config.name}",
        "",
        "A model that generates text and images together. `config.json` has the whole "
        "configuration, and `weights.safetensors` the EMA parameters in float16.",
        "",
        *_format_sizes(config, parameters),
        "",
        "## Use",
        "",
        USE,
        "",
        "## Training data",
        "",
        f"The data set `{config.source.name}`.",
        "",
        *(f"> {line}" for line in attribution),
        "",
        "## Metrics",
        "",
        "`--mode=evaluate` computed these metrics; docs/evaluation.md defines them.",
        "",
        *shown,
        "",
    ]
    return "\n".join(lines)


def _format_sizes(config: ml_collections.ConfigDict, parameters: int) -> list[str]:
    pixels = config.codec.pixels
    values = {
        "paradigm": config.paradigm.name,
        "parameters": f"{parameters:,}",
        "images": f"{pixels} x {pixels} pixels, codec `{config.codec.name}`",
        "aspect ratios": ", ".join(config.data.aspect_ratios),
        "row": f"{config.data.sequence_length} slots",
        "training": f"{config.steps:,} steps of {config.batch_size} rows",
        "optimizer": f"{config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}",
        "seed": str(config.seed),
        "version": f"oneflow_jax {oneflow_jax.__version__}",
    }
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in values.items())]
