"""The logic of the demo page: functions from prompts to HTML, which do not use Gradio."""

import os
import pathlib
import time
from collections.abc import Iterator, Sequence

import PIL.Image

from oneflow_jax.api.document import Document
from oneflow_jax.api.model import Model, load
from oneflow_jax.api.slides import TrajectoryViewer
from oneflow_jax.data import prompt as prompts
from oneflow_jax.errors import UserError, check_one_of, check_real
from oneflow_jax.runtime import storage, workdir
from oneflow_jax.shipped import PRETRAINED
from oneflow_jax.viewer import templates

STEP_PAUSE_S = 0.12
"""Seconds for which each step is shown."""

MAX_STEPS = 64

MAX_CHARACTERS = 100_000
"""Maximum number of characters of a document on the page."""


class ModelRegistry:
    """The models of the page, by name; each model is loaded when it is first used.

    Attributes:
        names: names of all models, the shipped one first.
    """

    def __init__(self, folders: Sequence[str | os.PathLike[str]]) -> None:
        """Register the shipped model and the runs in the given folders.

        Raises:
            UserError: a folder has no run with a checkpoint.
        """
        self._folders = {}
        for folder in (PRETRAINED, *folders):
            where = storage.resolve_path(folder, "workdir")
            config = workdir.load_config(where, field="workdir")
            if "paradigm" not in config or not workdir.has_checkpoints(where):
                raise UserError(
                    f"workdir={where} has no trained document model. Give the folder of a run that "
                    "has saved a checkpoint."
                )
            name = f"{config.paradigm.name}: {config.name}"
            self._folders[f"{name}, in {where}" if name in self._folders else name] = folder
        self._loaded: dict[str, Model] = {}
        self.names = tuple(self._folders)

    def __getitem__(self, name: str) -> Model:
        check_one_of("model", name, self.names)
        if name not in self._loaded:
            self._loaded[name] = load(self._folders[name], {"platform": "any"})
        return self._loaded[name]


def parse_prompt(text: str, files: Sequence[str]) -> Document:
    """Convert a prompt to a document, with each `<image:NAME>` replaced by an uploaded image.

    The function opens no other file, because a user of the page must not be able to read the files
    of the machine.

    Args:
        text: the prompt, in the format of `data.prompt`.
        files: paths of the uploaded images; NAME is a file name, or the number of a file from 1.

    Raises:
        UserError: the prompt is empty, too long or wrong, or an image is missing or cannot be read.
    """
    if not text.strip():
        raise UserError("The document is empty. Write text, with <image> or <text> for gaps.")
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"The document has {len(text)} characters. Write {MAX_CHARACTERS} at most.")
    parts = prompts.split(text)
    return Document(
        [_open_image(part, files) if isinstance(part, prompts.ImageTag) else part for part in parts]
    )


def _open_image(tag: prompts.ImageTag, files: Sequence[str]) -> PIL.Image.Image:
    known = {pathlib.Path(path).name: path for path in files}
    known |= {str(number): path for number, path in enumerate(files, 1)}
    if tag.path not in known:
        uploaded = ", ".join(pathlib.Path(path).name for path in files) or "none yet"
        raise UserError(
            f"<image:{tag.path}>: not on the page. Add the image under Images, which has "
            f"{uploaded}."
        )
    try:
        return PIL.Image.open(known[tag.path])
    except (OSError, PIL.Image.DecompressionBombError) as error:
        raise UserError(f"<image:{tag.path}> cannot be read as an image: {error}") from error


def stream_html(
    models: ModelRegistry,
    name: str,
    text: str,
    files: Sequence[str] | None,
    steps: float,
    guidance: float,
    seed: float,
) -> Iterator[str]:
    """Generate a document and yield HTML of each step, or HTML of an error message.

    Args:
        models: the models to choose from.
        name: name of the chosen model.
        text: the prompt, in the format of `data.prompt`.
        files: paths of the uploaded images.
        steps: steps of the solver, 1 to `MAX_STEPS`.
        guidance: scale of classifier-free guidance of images by text; 1 disables guidance.
        seed: RNG seed.

    Yields:
        HTML that replaces all earlier output: first messages about the progress, then every step
        of the document, and at the end all steps with a slider.
    """
    try:
        yield from _generate(models, name, text, files or (), steps, guidance, seed)
    except UserError as error:
        yield templates.render("message.html", role="alert", message=str(error))


def _generate(
    models: ModelRegistry,
    name: str,
    text: str,
    files: Sequence[str],
    steps: float,
    guidance: float,
    seed: float,
) -> Iterator[str]:
    prompt = parse_prompt(text, files)
    for field, value, least, most in (
        ("steps", steps, 1, MAX_STEPS),
        ("seed", seed, 0, 2**31 - 1),
        ("guidance", guidance, 0, 20),
    ):
        check_real(field, value, least, most)
    # The browser sends all numbers as floats.
    for field, value in (("steps", steps), ("seed", seed)):
        if value != int(value):
            raise UserError(f"{field}={value}: not a whole number. Give a whole number.")
    yield _render_status(f"Loading {name} ...")
    model = models[name]
    options = {"steps": int(steps), "seed": int(seed), "image_guidance_scale": float(guidance)}
    # This call raises errors of the prompt and the options before anything is compiled.
    stream = model.stream(prompt, **options)
    warnings = "".join(map(_render_status, model.list_warnings(prompt)))
    yield _render_status(
        "Generating; a new number of steps, a new length or the first guidance compiles a program "
        "..."
    )
    start = time.monotonic()
    states = list(stream)
    seconds = time.monotonic() - start
    for state in states:
        yield TrajectoryViewer([state]).html()
        time.sleep(STEP_PAUSE_S)
    document = states[-1].document
    full = " The canvas was full: some insertions were left out." if document.truncated else ""
    yield (
        TrajectoryViewer(states).html()
        + warnings
        + _render_status(
            f"{document.nfe} forward passes, {seconds:.2f} s including compilation.{full}"
        )
    )


def _render_status(message: str) -> str:
    """Render a line about the progress of the generation."""
    return templates.render("message.html", role="status", message=message)
