"""How a paradigm's words are scored for their likelihood, where it has one or a bound on it.

What is returned shows and scores a row as the training step has it, so that the mean of its term
`text` over times u, uniform in [0, 1), is -log p of the row's words in nats, or no less:

    left to right   sum of -log p(next token | all before it, pictures clean)          the value
    mask_flow       E_t [ sum of -log p(token | what is not hidden) / (1 - t) ]        a bound
    edit_flow       E_t [ (sum of R over gaps - sum of 1 + log R Q over what is
                    missing) / (1 - t) ],  R = (1 - π) λ                               a bound

The second is that of masked diffusion (Sahoo et al., MDLM, 2024, eq. 10). The third is the relative
entropy of two jump processes: one that inserts each missing token with hazard 1 / (1 - t), and the
model's, which inserts into each gap with R / (1 - t) and token a with probability Q(a) (Havasi et
al., Edit Flows, 2025, whose loss is this but for constants). Both flows see pictures at the words'
time t, and are told how many there are. `oneflow` has none: its words are points of a continuous
flow, which has a density and no probability.
"""

import dataclasses
import functools
import math

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax.canvas import Canvas, Table, View
from oneflow_jax.flows import clocks, losses, tasks
from oneflow_jax.paradigms import chameleon, edit_flow, growth, mask_flow, transfusion
from oneflow_jax.paradigms.base import Paradigm
from oneflow_jax.shapes import Array, Float, Key, Outputs

EXACT = (chameleon.Chameleon, transfusion.Transfusion)
"""Those whose term is the likelihood itself, and the same at all times."""


@functools.singledispatch
def scorer(paradigm: Paradigm) -> Paradigm | None:
    """What scores its words as above; None if their likelihood has no known bound."""
    del paradigm


@scorer.register
def _(paradigm: chameleon.Chameleon) -> chameleon.Chameleon:
    return paradigm.in_step


@scorer.register
def _(paradigm: transfusion.Transfusion) -> transfusion.Transfusion:
    always_clean = clocks.Power(0.0)
    return dataclasses.replace(paradigm, mix=tasks.ALL, clock=always_clean)


@scorer.register
def _(paradigm: mask_flow.MaskFlow) -> mask_flow.MaskFlow:
    return dataclasses.replace(paradigm.in_step, cap=math.inf)


@flax.struct.dataclass
class Targets:
    """What `edit_flow` is scored against, with the time t of each slot's document."""

    own: edit_flow.Targets
    t: Float[Array, "L"]


@dataclasses.dataclass(frozen=True)
class Insertions:
    """The bound for an `edit_flow` that shows all of a document at its time t = u."""

    paradigm: edit_flow.EditFlow

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: Table
    ) -> tuple[View, Targets]:
        """As `paradigm` does."""
        view, own = self.paradigm.corrupt(key, u, canvas, table)
        return view, Targets(own, u)

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """The integrand of the bound, over the number of words that are missing."""
        own, hazard = targets.own, 1 / (1 - targets.t)
        log_some = jax.nn.log_sigmoid(-outputs["gap_empty"][:, 0])
        log_rate = log_some + growth.log_count(outputs["gap_count"])
        gap = own.gaps.gap
        told = losses.cross_entropy(outputs["gap_logits"][gap], own.ids, own.missing, hazard)
        rates = jnp.sum(jnp.where(own.open, hazard * jnp.exp(log_rate), 0.0))
        jumps = jnp.sum(jnp.where(own.missing, hazard * (1 + log_rate[gap]), 0.0))
        return {"text": metrics.Average(total=told.total + rates - jumps, count=told.count)}


@scorer.register
def _(paradigm: edit_flow.EditFlow) -> Insertions:
    return Insertions(paradigm.in_step)
