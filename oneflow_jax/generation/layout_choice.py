"""Choice of the layout of a document, for models that generate the slots of one layout.

A prompt fits several layouts: after "two animals:", one image may follow, or two. By Bayes' rule,

    p(layout | text) ∝ p(layout) p(text | layout)        p(text | layout) ≈ Π p(token | layout)

The text is that of the prompt, and `data.known_layouts` has p(layout). The network predicts each
token from the layout alone, that is from a canvas at t = 0, in one forward pass. The approximation
treats the tokens as independent of each other for a given layout. Given images are ignored.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.data import known_layouts, prompt_rows
from oneflow_jax.data.document import Document
from oneflow_jax.generation import batch_rows
from oneflow_jax.generation.system import GenerativeSystem
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms.base import Paradigm
from oneflow_jax.runtime import distributed, padding, sharding
from oneflow_jax.shapes import Array, Float, Key, PyTree

TOKEN_HEAD = "text_logits"
"""Name of the head that predicts hidden tokens, in paradigms that predict all slots at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class LayoutChoice:
    """Replaces the gap <document> of prompts by gaps of known length.

    Attributes:
        system: the model's parts.
        params: parameters, sharded over the system's mesh.
    """

    system: GenerativeSystem
    params: PyTree

    def choose(
        self, prompts: Sequence[Document], seeds: Sequence[int], noise_ids: Sequence[int]
    ) -> list[Document]:
        """Draw a layout for each prompt with the gap <document>, and return all prompts.

        The draw depends on the seed and the noise id. Models that choose the layout themselves get
        their prompts unchanged.

        Raises:
            UserError: no known layout fits, or <document> is not the last part of a prompt.
        """
        distributions: dict[Document, known_layouts.Distribution] = {}
        chosen = []
        for prompt, *key in zip(prompts, seeds, noise_ids, strict=True):
            if self.system.layout.variable_length or not known_layouts.has_open_layout(prompt):
                chosen.append(prompt)
                continue
            if prompt not in distributions:
                distributions[prompt] = self.predict(prompt)
            chosen.append(distributions[prompt].sample(np.random.default_rng(key)))
        return chosen

    def predict(self, prompt: Document) -> known_layouts.Distribution:
        """Return p(layout | text of the prompt); without text, p(layout).

        A paradigm whose network does not predict tokens ignores the text.

        Raises:
            UserError: see `choose`.
        """
        system = self.system
        prior = known_layouts.fit(prompt, system.layout, system.known_layouts)
        predicts_tokens = any(head.name == TOKEN_HEAD for head in system.paradigm.heads)
        if not (prompt.text() and predicts_tokens):
            return prior
        rows = [prompt_rows.prompt_row(system.layout, each, edit=False) for each in prior.prompts]
        batch = padding.padded_batch_size(system.mesh, len(rows), known_layouts.MAX_LAYOUTS)
        length = batch_rows.padded_length(system.layout, rows)
        keys = jax.random.split(jax.random.key(0), batch)
        placed = batch_rows.place(system, rows, batch, length, keys)
        with sharding.mesh_context(system.mesh, sharding.SAMPLING_RULES):
            losses = compute_given_text_losses(
                self.params,
                *placed,
                model=system.model,
                paradigm=system.paradigm.at_shared_time,
            )
        return prior.update(distributed.to_host(losses)[: len(rows)])


@functools.partial(jax.jit, static_argnames=("model", "paradigm"))
def compute_given_text_losses(
    params: PyTree,
    canvas: Canvas,
    keys: Key[Array, "B"],
    *,
    model: Model,
    paradigm: Paradigm,
) -> Float[Array, "B"]:
    """Return -log p(given text | layout) of each row, in nats.

    Args:
        params: the model's parameters.
        canvas: a prompt in one layout per row.
        keys: random key of each row.
        model: the network.
        paradigm: paradigm whose slots have a shared time.
    """
    is_start = canvas.position[..., 0] == 0
    given_text = canvas.is_given & canvas.is_text & ~is_start
    hidden = canvas.replace(is_given=is_start | (canvas.modality == Modality.PAD))
    table = model.apply({"params": params}, method="embedding_table")
    corrupt = jax.vmap(functools.partial(paradigm.corrupt, table=table))
    view, targets = corrupt(keys, jnp.zeros(canvas.ids.shape), hidden)
    targets = targets.replace(text_scored=targets.text_scored & given_text)
    outputs = model.apply({"params": params}, view)
    return jax.vmap(paradigm.loss)(outputs, targets)["text"].total
