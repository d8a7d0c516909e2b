"""Rows of slots for prompts and for documents to edit, with checks."""

from oneflow_jax.data import edits, known_layouts
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.data.layout import Layout, RowFields
from oneflow_jax.errors import UserError


def prompt_row(layout: Layout, prompt: Document, *, edit: bool) -> RowFields:
    """Lay out a prompt, or a document to edit, as slots.

    Raises:
        UserError: the prompt has no gap, the document to edit has a gap, or the document does not
            fit the canvas.
    """
    gaps = any(isinstance(part, Gap) for part in prompt.parts)
    if edit and gaps:
        raise UserError(
            f"The document {prompt.text()!r} has a gap, and only finished documents can be edited: "
            "fill the gap first, with --prompt."
        )
    if edit:
        return layout.edit_row(prompt)
    if not gaps:
        raise UserError(
            f"The prompt {prompt.text()!r} has no gap to fill: write <image> or <text> where "
            "something is to be generated. To revise a finished document, edit it (on the command "
            "line: --edit)."
        )
    return layout.prompt_row(prompt)


def check_prompt(
    layout: Layout, known: known_layouts.KnownLayouts | None, prompt: Document, *, edit: bool
) -> None:
    """Check that a prompt, or a document to edit, can be laid out.

    A prompt with the gap <document> needs a known layout if the model does not choose the layout.

    Raises:
        UserError: see `prompt_row` and `known_layouts.fit`.
    """
    if not (edit or layout.variable_length) and known_layouts.has_open_layout(prompt):
        prompt = known_layouts.fit(prompt, layout, known).prompts[0]
    prompt_row(layout, prompt, edit=edit)


def diff_documents(layout: Layout, before: Document, after: Document) -> list[edits.Edit]:
    """List the edits between a given document and its edited version."""
    # `after` was decoded from slots, so convert `before` to slots and back too: this may change the
    # case of words and the pixels, and these changes are not edits.
    (read,) = layout.decode(layout.canvas([layout.edit_row(before)]))
    return edits.diff_documents(read, after)
