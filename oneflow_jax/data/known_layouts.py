"""Layouts of the training documents, for models that do not choose the layout of a document.

The layout of a document is the number and the lengths of its text runs and images. A model of fixed
layout generates the slots of one layout. To generate "<document>", a layout is drawn first, from
those that are frequent in training. The counts estimate p(layout).
"""

import collections
import dataclasses
import json
import math
from collections.abc import Iterable, Sequence

import numpy as np

from oneflow_jax.data import document as documents
from oneflow_jax.data import image_shapes, overflow, spelling
from oneflow_jax.data.document import Document, Gap, Text
from oneflow_jax.data.layout import Layout
from oneflow_jax.errors import UserError

MAX_LAYOUTS = 64
"""Maximum number of layouts that are kept, the most frequent ones."""

IMAGE = image_shapes.SQUARE
"""A square image in a layout."""

Runs = tuple[int | str, ...]
"""A layout: the number of slots of each text run, and the aspect ratio of each image, in order."""

_OLD_IMAGE = 0
"""The number of an image in files of earlier versions, which had only square images."""


@dataclasses.dataclass(frozen=True)
class KnownLayouts:
    """The most frequent layouts of training documents.

    Attributes:
        layouts: the layouts, the most frequent one first.
        counts: number of documents of each layout.
        documents: number of documents that were counted, including those of rarer layouts.
    """

    layouts: tuple[Runs, ...]
    counts: tuple[int, ...]
    documents: int

    def to_json(self) -> str:
        """Return the content of a file."""
        rows = [
            {"runs": list(runs), "documents": count}
            for runs, count in zip(self.layouts, self.counts, strict=True)
        ]
        return json.dumps({"documents": self.documents, "layouts": rows}) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "KnownLayouts":
        """Return the layouts of a file that `to_json` wrote."""
        values = json.loads(text)
        rows = values["layouts"]
        return cls(
            layouts=tuple(
                tuple(IMAGE if run == _OLD_IMAGE else run for run in row["runs"]) for row in rows
            ),
            counts=tuple(row["documents"] for row in rows),
            documents=values["documents"],
        )


def count(examples: Iterable[Document], layout: Layout) -> KnownLayouts:
    """Count the layouts of documents that fit a row; images may be gaps."""
    counter = collections.Counter(
        runs
        for runs in (_describe_runs(each, layout) for each in examples)
        if 1 + sum(_count_run_slots(run, layout) for run in runs) <= layout.length  # 1 is for BOS
    )
    # Sorted, so that the order of documents has no influence.
    frequent = sorted(counter.items(), key=lambda item: (-item[1], _make_sort_key(item[0])))
    frequent = frequent[:MAX_LAYOUTS]
    return KnownLayouts(
        layouts=tuple(runs for runs, _ in frequent),
        counts=tuple(number for _, number in frequent),
        documents=counter.total(),
    )


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The layouts that a prompt allows, with their probabilities.

    Attributes:
        prompts: the prompt in each layout, with gaps of known length in place of <document>.
        probs: probability of each layout, `[number of layouts]`.
    """

    prompts: tuple[Document, ...]
    probs: np.ndarray

    def update(self, losses: np.ndarray) -> "Distribution":
        """Return p(layout | text) for this p(layout), by Bayes' rule.

        Args:
            losses: -log p(text | layout) of each layout.
        """
        logits = np.log(self.probs) - losses
        weights = np.exp(logits - logits.max())
        return dataclasses.replace(self, probs=weights / weights.sum())

    def sample(self, rng: np.random.Generator) -> Document:
        """Draw a layout, and return the prompt in this layout."""
        return self.prompts[rng.choice(len(self.prompts), p=self.probs)]


def has_open_layout(prompt: Document) -> bool:
    """Return whether a prompt has the gap <document>."""
    return Gap("document") in prompt.parts


def make_text_gaps(slots: int, layout: Layout, used: int = 0) -> list[Gap]:
    """Return the gaps that complete a text of `used` tokens to a run of a number of slots."""
    full = slots - layout.text_slots
    if full < used:
        # A gap of unknown length could make the run longer.
        return [Gap("text", slots - 1 - used)] if slots - 1 > used else []
    return [*([Gap("text", full - used)] if full > used else []), Gap("text")]


def fit(prompt: Document, layout: Layout, known: KnownLayouts | None) -> Distribution:
    """Return the known layouts that begin as the prompt does.

    Args:
        prompt: given text, given images and gaps, with one gap <document> at the end.
        layout: the layout of rows.
        known: the layouts of training documents; None if they are not known.

    Raises:
        UserError: the layouts are not known, <document> is not the last part, or no layout fits.
    """
    if known is None:
        raise UserError(
            "<document>: it is not known which layouts the training documents of this model had, "
            "because an earlier version trained it. Write <text> and <image> in order."
        )
    if Gap("document") in prompt.parts[:-1]:
        raise UserError("<document>: this model needs it as the last part. Move it to the end.")
    given = prompt.parts[:-1]
    start = list(documents.group_runs(given))
    fitting = [
        (Document((*given, *rest)), number)
        for runs, number in zip(known.layouts, known.counts, strict=True)
        if (rest := _find_remaining_gaps(start, runs, layout)) is not None
    ]
    if not fitting:
        raise UserError(
            "<document>: no frequent training document has as much text or as many images in this "
            f"order. Write <text> and <image> in order. The prompt is: {prompt.text()[:60]!r}"
        )
    prompts, counts = zip(*fitting, strict=True)
    return Distribution(prompts, np.asarray(counts) / sum(counts))


def _describe_runs(example: Document, layout: Layout) -> Runs:
    return tuple(
        overflow.count_text_slots(layout, run)
        if documents.is_text(run[0])
        else _describe_image(run[0], layout)
        for run in documents.group_runs(example.parts)
    )


def _describe_image(part: documents.Part, layout: Layout) -> str:
    return layout.image_gap(part).aspect_ratio or IMAGE


def _count_run_slots(run: int | str, layout: Layout) -> int:
    if isinstance(run, int):
        return run
    return math.prod(layout.image_grid(Gap("image", aspect_ratio=run)))


def _make_sort_key(runs: Runs) -> list[tuple[int, str]]:
    """Return a key that sorts layouts: images are before texts, and squares before other images."""
    return [(0, "" if run == IMAGE else run) if isinstance(run, str) else (run, "") for run in runs]


def _find_remaining_gaps(
    start: Sequence[Sequence[documents.Part]], runs: Runs, layout: Layout
) -> list[Gap] | None:
    """Return the gaps that complete a prompt to a layout; None if the prompt does not fit.

    A text at the end of the prompt may go on; a text run before an image is complete.
    """
    if len(start) > len(runs):
        return None
    goes_on = bool(start) and isinstance(start[-1][-1], Text)
    for run, slots in zip(start, runs, strict=False):
        if documents.is_text(run[0]) != isinstance(slots, int):
            return None
        if isinstance(slots, str) and _describe_image(run[0], layout) != slots:
            return None
        is_complete = documents.is_text(run[0]) and not (goes_on and run is start[-1])
        if is_complete and _count_slots(run, layout) != slots:
            return None
    gaps: list[Gap] = []
    if goes_on:
        slots, used = runs[len(start) - 1], _count_tokens(start[-1], layout)
        if used >= slots:
            return None
        gaps += make_text_gaps(slots, layout, used)
    for slots in runs[len(start) :]:
        if isinstance(slots, str):
            gaps.append(Gap("image", aspect_ratio=slots))
        else:
            gaps += make_text_gaps(slots, layout)
    has_gap = any(isinstance(part, Gap) for run in start for part in run)
    return gaps if gaps or has_gap else None


def _count_slots(run: Sequence[documents.Part], layout: Layout) -> int:
    return len(layout.prompt_row(Document(tuple(run)))["modality"]) - 1  # without BOS


def _count_tokens(run: Sequence[documents.Part], layout: Layout) -> int:
    return sum(
        len(spelling.encode_prompt(layout.vocab, part.text))
        if isinstance(part, Text)
        else part.slots
        for part in run
    )
