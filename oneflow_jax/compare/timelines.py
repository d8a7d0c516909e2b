"""Records timelines: the forward passes at which each part of a document starts and ends."""

import time
from collections.abc import Iterator

from oneflow_jax import evaluate
from oneflow_jax.canvas import Modality
from oneflow_jax.compare.page import Timeline, TimelineBar
from oneflow_jax.compare.runs import FinishedRun
from oneflow_jax.data import layout as layouts
from oneflow_jax.evaluation import base
from oneflow_jax.generation.generator import Generator
from oneflow_jax.generation.running_batch import GeneratedBatch
from oneflow_jax.viewer import from_samples, token_times, trajectory


def record_timeline(finished_run: FinishedRun, task: base.EvalTask, nfe: int) -> Timeline:
    """Generate a document for a task's first prompt at batch size 1, and record its timeline."""
    system = finished_run.system
    grid = evaluate.time_grid(system, finished_run.params)
    plan = evaluate.task_plan(system, task, nfe, grid)
    generator = Generator(system, finished_run.params)
    run = {"seed": finished_run.run.seed, "batch": system.mesh.size}
    (_,) = generator(task.prompts[:1], plan, **run)  # The first call compiles the program.
    began = time.monotonic()
    (sample,) = generator(task.prompts[:1], plan, **run)
    seconds = time.monotonic() - began
    if system.layout.has_markers:
        return Timeline(sample.nfe, seconds, list(_autoregressive_bars(system.layout, sample)))
    (moved,) = generator(task.prompts[:1], plan, **run, record=True)
    (view,) = from_samples.build_views(system.layout, moved.trajectory, [""], [""])
    return Timeline(sample.nfe, seconds, list(_concurrent_bars(view, sample.nfe)))


def _autoregressive_bars(layout: layouts.Layout, batch: GeneratedBatch) -> Iterator[TimelineBar]:
    """Yield the bars of an autoregressive sample: one pass per token, the rest shared by images."""
    canvas = batch.canvas
    runs = list(layouts.iter_parts(canvas.modality[0], canvas.span[0], canvas.position[0]))
    words = sum(len(at) for what, at in runs if what == Modality.TEXT)
    pictures = sum(what == Modality.IMAGE for what, _ in runs)
    done = 1  # One forward pass processes BOS.
    each = (batch.nfe - done - words) / max(1, pictures)
    for what, at in runs:
        took = each if what == Modality.IMAGE else len(at)
        if what == Modality.IMAGE:
            yield TimelineBar("image", "image", done, done + took)
        elif label := layout.vocab.decode(canvas.ids[0][at].tolist()):
            yield TimelineBar("text", label, done, done + took)
        done += took


def _concurrent_bars(view: trajectory.TrajectoryView, nfe: int) -> Iterator[TimelineBar]:
    """Yield the bars of a concurrent sample, whose steps are equal parts of `nfe`."""
    each = nfe / max(1, len(view.frames) - 1)
    for part, first, last in token_times.compute_formation_intervals(view):
        picture = isinstance(part, trajectory.ImageView)
        label = "image" if picture else part.to_text()
        yield TimelineBar(
            "image" if picture else "text", label, first * each, min(last * each, nfe)
        )
