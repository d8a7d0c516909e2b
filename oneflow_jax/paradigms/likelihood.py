"""How a paradigm's words are scored for their likelihood, where it has one or a bound on it.

A scorer shows and scores a row as the training step does, so that the mean of its term `text` over
times u, uniform in [0, 1), is -log p of the row's words in nats, or no less:

    left to right   sum of -log p(next token | all before it, pictures clean)          the value
    mask_flow       E_t [ sum of -log p(token | what is not hidden) / (1 - t) ]        a bound

The second is that of masked diffusion (Sahoo et al., MDLM, 2024, eq. 10); it sees pictures at the
words' time t, and is told how many runs of words and pictures there are, and how long they are.

`edit_flow` has no finite bound. It inserts into a gap with hazard R / (1 - t), and a network's R is
never 0, so that in continuous time it would insert without end before t=1; only steps of some
length let documents end. `oneflow` has none either: its words are points of a continuous flow,
which has a density and no probability.
"""

import dataclasses
import functools
import math

from oneflow_jax.flows import tasks, time_samplers
from oneflow_jax.paradigms import chameleon, mask_flow, transfusion
from oneflow_jax.paradigms.base import Paradigm


@dataclasses.dataclass(frozen=True)
class LikelihoodBound:
    """What scores words.

    Attributes:
        paradigm: corrupts and scores rows, as above.
        exact: whether its term is the likelihood itself, and the same at all times.
    """

    paradigm: Paradigm
    exact: bool


@functools.singledispatch
def likelihood_bound(paradigm: Paradigm) -> LikelihoodBound | None:
    """What scores its words; None if their likelihood has no known bound."""
    del paradigm


@likelihood_bound.register
def _(paradigm: chameleon.Chameleon) -> LikelihoodBound:
    return LikelihoodBound(paradigm.in_step, exact=True)


@likelihood_bound.register
def _(paradigm: transfusion.Transfusion) -> LikelihoodBound:
    always_clean = time_samplers.PowerTimeSampler(0.0)
    return LikelihoodBound(
        dataclasses.replace(paradigm, mix=tasks.ALL_TARGETS, clock=always_clean), exact=True
    )


@likelihood_bound.register
def _(paradigm: mask_flow.MaskFlow) -> LikelihoodBound:
    # The cap is of training alone.
    return LikelihoodBound(dataclasses.replace(paradigm.in_step, cap=math.inf), exact=False)
