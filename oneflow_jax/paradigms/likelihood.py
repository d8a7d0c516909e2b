"""Exact likelihoods and likelihood bounds of text, for the paradigms that have one.

A `LikelihoodBound` holds a paradigm that corrupts and scores a row as in training. The mean of its
loss term `text` over times u, uniform in [0, 1), is -log p of the row's text in nats, or an upper
bound on -log p:

    autoregressive  sum of -log p(next token | all before it, images clean)            exact
    mask_flow       E_t [ sum of -log p(token | tokens that are not masked) / (1 - t) ]    bound

The bound is that of masked diffusion (Sahoo et al., MDLM, 2024, eq. 10), with images at the time t
of the text. It does not count the layout, which the network is given: the number and length of text
spans, and the images' places.

`edit_flow` has no finite bound. The hazard of an insertion into a gap is λ / (1 - t), and the λ of
a network is never 0. So in continuous time the model would insert infinitely many items before t=1;
only the finite number of steps limits a document. `oneflow` has no bound either: its text is a
point of a continuous flow, which has a density and not a probability.
"""

import dataclasses
import functools
import math

from oneflow_jax.flows import tasks, time_samplers
from oneflow_jax.paradigms import chameleon, mask_flow, transfusion
from oneflow_jax.paradigms.base import Paradigm


@dataclasses.dataclass(frozen=True)
class LikelihoodBound:
    """A paradigm that scores the likelihood of text.

    Attributes:
        paradigm: corrupts and scores rows; the loss term `text` gives the bound.
        exact: whether the term is -log p itself; its value is then the same for all u.
    """

    paradigm: Paradigm
    exact: bool


@functools.singledispatch
def likelihood_bound(paradigm: Paradigm) -> LikelihoodBound | None:
    """Return the likelihood bound of a paradigm's text, or None if no bound is known."""
    del paradigm


@likelihood_bound.register
def _(paradigm: chameleon.Chameleon) -> LikelihoodBound:
    return LikelihoodBound(paradigm.at_shared_time, exact=True)


@likelihood_bound.register
def _(paradigm: transfusion.Transfusion) -> LikelihoodBound:
    always_clean = time_samplers.PowerTimeSampler(0.0)
    return LikelihoodBound(
        dataclasses.replace(paradigm, task_mixture=tasks.ALL_TARGETS, time_sampler=always_clean),
        exact=True,
    )


@likelihood_bound.register
def _(paradigm: mask_flow.MaskFlow) -> LikelihoodBound:
    # The training loss caps the weight of masked tokens. The bound needs the uncapped weight.
    return LikelihoodBound(
        dataclasses.replace(paradigm.at_shared_time, max_mask_weight=math.inf), exact=False
    )
