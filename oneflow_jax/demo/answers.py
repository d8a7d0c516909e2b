"""What the page says to what it is asked; it knows models and documents, and no widgets."""

import html
import os
import pathlib
import re
import time
from collections.abc import Iterator, Sequence

import PIL.Image

from oneflow_jax.api.model import Model, load
from oneflow_jax.api.slides import TrajectoryViewer
from oneflow_jax.data import prompt as prompts
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import storage, workdir
from oneflow_jax.shipped import PRETRAINED
from oneflow_jax.viewer import fonts

STEP_PAUSE_S = 0.12
"""Seconds that each step is shown, so that the eye can follow."""

MAX_STEPS = 64

_IMAGE_TAG = re.compile(r"<image:([^<>]*)>")
_ERROR_STYLE = (
    f"padding: .8em 1.2em; border-left: .3em solid {fonts.ACCENT_COLOR}; "
    f"background: {fonts.BACKGROUND_COLOR}; color: {fonts.TEXT_COLOR}"
)
_STATUS_STYLE = f"color: {fonts.MUTED_COLOR}; font-size: .85em"


class ModelRegistry:
    """The models that may be chosen, by what the page calls them; each is loaded when first asked.

    Attributes:
        names: of all, the shipped one first.
    """

    def __init__(self, folders: Sequence[str | os.PathLike[str]]) -> None:
        """Of the shipped model and of the runs in some folders.

        Raises:
            UserError: a folder is not that of a run with a checkpoint.
        """
        self._folders = {}
        for folder in (PRETRAINED, *folders):
            where = storage.resolve_path(os.path.expanduser(os.fspath(folder)), "workdir")
            config = workdir.load_config(where, field="workdir")
            if "paradigm" not in config or not workdir.has_checkpoints(where):
                raise UserError(
                    f"workdir={where} has no trained model of documents: give the folder of a run "
                    "that has saved a checkpoint."
                )
            name = f"{config.paradigm.name}: {config.name}"
            self._folders[f"{name}, in {where}" if name in self._folders else name] = folder
        self._loaded: dict[str, Model] = {}
        self.names = tuple(self._folders)

    def __getitem__(self, name: str) -> Model:
        if name not in self._folders:
            raise UserError(f"There is no model {name!r}: choose {', '.join(self.names)}.")
        if name not in self._loaded:
            self._loaded[name] = load(self._folders[name], {"platform": "any"})
        return self._loaded[name]


def parse_prompt(text: str, files: Sequence[str]) -> list[prompts.PromptPart]:
    """The prompt that was written, its `<image:NAME>` replaced by pictures that came with it.

    No other file is ever opened: the page may be seen by others than who owns the machine.

    Args:
        text: in the language of prompts.
        files: paths of the pictures that came with it; NAME is one's name, or its number from 1.

    Raises:
        UserError: there is nothing written, no picture of that name, or it cannot be read.
    """
    if not text.strip():
        raise UserError("The document is empty: write words, and <image> or <text> for gaps.")
    known = {pathlib.Path(path).name: path for path in files}
    known |= {str(number): path for number, path in enumerate(files, 1)}
    pieces: list[prompts.PromptPart] = []
    for at, piece in enumerate(_IMAGE_TAG.split(text)):
        if at % 2 == 0:
            pieces += [piece] if piece.strip() else []
            continue
        if piece not in known:
            there = ", ".join(pathlib.Path(path).name for path in files) or "none yet"
            raise UserError(f"<image:{piece}>: add that picture to the page first; there: {there}.")
        try:
            pieces.append(PIL.Image.open(known[piece]))
        except (OSError, PIL.Image.DecompressionBombError) as error:
            raise UserError(f"<image:{piece}> cannot be read as a picture: {error}") from error
    return pieces


def stream_html(
    models: ModelRegistry,
    name: str,
    text: str,
    files: Sequence[str] | None,
    steps: float,
    guidance: float,
    seed: float,
) -> Iterator[str]:
    """HTML that follows a document as it forms; a mistake is told in its place.

    Args:
        models: to choose from.
        name: of the chosen one.
        text: in the language of prompts.
        files: paths of pictures that came with it.
        steps: of the solver, 1 to `MAX_STEPS`.
        guidance: of pictures by words; 1 is none.
        seed: of all randomness.

    Yields:
        What to show, each in place of the one before: what is under way, every step of the
        document, and in the end all of them under a slider.
    """
    try:
        yield from _generate(models, name, text, files or (), steps, guidance, seed)
    except UserError as error:
        yield f'<div role="alert" style="{_ERROR_STYLE}">{html.escape(str(error))}</div>'


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
        if value is None or not least <= value <= most:
            raise UserError(f"{field}={value} must be from {least} to {most}.")
    yield _render_status(f"Loading {name} ...")
    model = models[name]
    options = {"steps": int(steps), "seed": int(seed), "guidance": float(guidance)}
    # What cannot be is told before anything is compiled.
    stream = model.stream(prompt, **options)
    yield _render_status("Making it; the first time with these settings a program is compiled ...")
    began = time.monotonic()
    states = list(stream)
    seconds = time.monotonic() - began
    for state in states:
        yield TrajectoryViewer([state]).html()
        time.sleep(STEP_PAUSE_S)
    made = states[-1].document
    full = " The document ran out of room: something was left out." if made.full else ""
    yield TrajectoryViewer(states).html() + _render_status(
        f"{made.passes} forward passes, {seconds:.2f} s with all that was compiled.{full}"
    )


def _render_status(message: str) -> str:
    return f'<p role="status" style="{_STATUS_STYLE}">{html.escape(message)}</p>'
