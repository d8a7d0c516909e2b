"""What of a document is begun and finished after how many forward passes, by paradigm."""

import dataclasses
import time
from collections.abc import Iterator

from oneflow_jax import evaluate, generate
from oneflow_jax.canvas import Kind
from oneflow_jax.compare.page import Bar, Timeline
from oneflow_jax.compare.runs import Trained
from oneflow_jax.data import layout as layouts
from oneflow_jax.evaluation import base
from oneflow_jax.viewer import from_samples, token_times, trajectory


def timeline(trained: Trained, task: base.Task, passes: int) -> Timeline:
    """How the first document of a task comes about, by itself."""
    system = trained.system
    grid = evaluate.spacing(system, trained.params)
    plan = evaluate.plan_of(system, task, passes, grid)
    generator = generate.Generator(system, trained.params)
    run = {"seed": trained.run.seed, "batch": system.mesh.size}
    (_,) = generator(task.prompts[:1], plan, **run)  # compiles
    began = time.monotonic()
    (made,) = generator(task.prompts[:1], plan, **run)
    seconds = time.monotonic() - began
    if system.layout.markers:
        return Timeline(made.passes, seconds, list(_in_order(system.layout, made)))
    (moved,) = generator(task.prompts[:1], dataclasses.replace(plan, record=True), **run)
    (told,) = from_samples.stories(system.layout, moved.moments, [""], [""])
    return Timeline(made.passes, seconds, list(_as_told(told, made.passes)))


def _in_order(layout: layouts.Layout, made: generate.Made) -> Iterator[Bar]:
    """Of a document that was written from left to right: a pass a token, the rest for pictures."""
    canvas = made.canvas
    runs = list(layouts.parts(canvas.kind[0], canvas.span[0], canvas.position[0]))
    words = sum(len(at) for what, at in runs if what == Kind.TEXT)
    pictures = sum(what == Kind.IMAGE for what, _ in runs)
    done = 1  # BOS has been read
    each = (made.passes - done - words) / max(1, pictures)
    for what, at in runs:
        took = each if what == Kind.IMAGE else len(at)
        if what == Kind.IMAGE:
            yield Bar("image", "picture", done, done + took)
        elif label := layout.vocab.decode(canvas.ids[0][at].tolist()):
            yield Bar("text", label, done, done + took)
        done += took


def _as_told(told: trajectory.Story, passes: int) -> Iterator[Bar]:
    """Of a document that formed all at once: the passes are spread over the frames."""
    each = passes / max(1, len(told.frames) - 1)
    for part, first, last in token_times.stretches(told):
        picture = isinstance(part, trajectory.Picture)
        label = "picture" if picture else part.reading()
        yield Bar("image" if picture else "text", label, first * each, min(last * each, passes))
