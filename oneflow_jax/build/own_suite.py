"""Builder of the evaluation suite of a user's own data (`evaluation.own_data`)."""

import ml_collections
import numpy as np

from oneflow_jax.build import data, document_losses
from oneflow_jax.canvas import Modality
from oneflow_jax.data import document as documents
from oneflow_jax.data import known_layouts, overflow
from oneflow_jax.data import layout as layouts
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import base, own_data
from oneflow_jax.training.conditioning import SPLITS

MAX_TRAINING_DOCUMENTS = 2_000
"""Maximum number of training documents to search for copies, spread evenly over the split."""


def make_suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.EvalSuite:
    """Make the suite from documents with text and images that fit a row and can be prompts."""
    sources = {split: data.open_split(config, split) for split in SPLITS}
    chosen = {
        split: document_losses.select(source, config.evaluation.num_samples)
        for split, source in sources.items()
    }

    def text_slots(document: Document) -> np.ndarray:
        row = layout.row(document)
        return row["ids"][(row["modality"] == Modality.TEXT) & ~row["is_given"]]

    # Only OneFlow has the key, and edit_flow predicts more than tokens.
    has_cross_entropy = (
        config.paradigm.objective == "cross_entropy" and config.paradigm.name != "edit_flow"
    )
    training = document_losses.select(sources["train"], MAX_TRAINING_DOCUMENTS)
    own = own_data.OwnData(
        examples={
            split: [one for each in chosen[split] if (one := make_example(each, layout))]
            for split in ("heldout", "train")
        },
        training=[document for document in training if _fits(document, layout)],
        encode=lambda text: layout.vocab.encode(text, allow_unknown=True) if text.strip() else [],
        text_slots=text_slots if has_cross_entropy else None,
        pixels=layout.codec.pixels,
        full_metrics=config.evaluation.full_metrics,
    )
    return own_data.make_suite(own)


def make_example(document: Document, layout: layouts.Layout) -> own_data.Example | None:
    """Return a document with its prompts, or None if a prompt cannot be laid out.

    A prompt cannot be laid out if the document is longer than a row, or has characters that the
    tokenizer does not know.
    """
    try:
        example = own_data.Example(
            document,
            replace_by_gaps(document, "image", layout),
            replace_by_gaps(document, "text", layout),
        )
        layout.row(document)
        for prompt in (example.image_prompt, example.text_prompt):
            layout.prompt_row(prompt)
    except UserError:
        return None
    return example


def replace_by_gaps(document: Document, kind: str, layout: layouts.Layout) -> Document:
    """Replace the images of a document, or its texts, by gaps with the same number of slots.

    Models that choose the length of a text get gaps of any length.
    """
    parts: list[documents.Part] = []
    for run in documents.group_runs(document.parts):
        is_text = documents.is_text(run[0])
        if is_text != (kind == "text"):
            parts += run
        elif not is_text:
            parts.append(layout.image_gap(run[0]))
        elif layout.variable_length:
            parts.append(Gap("text"))
        else:
            slots = overflow.count_text_slots(layout, run)
            parts += known_layouts.make_text_gaps(slots, layout)
    return Document(tuple(parts))


def _fits(document: Document, layout: layouts.Layout) -> bool:
    try:
        layout.row(document)
    except UserError:
        return False
    return True
