"""The functions that generation compiles: the sampler of a batch of canvases."""

import jax

from oneflow_jax.canvas import Canvas
from oneflow_jax.nn import bound_model, unstack
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms.base import Paradigm
from oneflow_jax.samplers import steps
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan
from oneflow_jax.samplers.steps import Sampler
from oneflow_jax.shapes import Array, Int, PyTree


def make_sampler(
    params: PyTree,
    canvas: Canvas,
    document_ids: Int[Array, "B"],
    seeds: Int[Array, "B"],
    plan: SamplingPlan,
    *,
    model: Model,
    paradigm: Paradigm,
) -> Sampler:
    """Return the sampler of a batch of canvases.

    A compiled program depends on the structure of the plan, and takes its values as arguments
    (`samplers.plan_values`). The function must run in the mesh context of
    `sharding.SAMPLING_RULES`.

    Args:
        params: the model's parameters.
        canvas: canvases with gaps.
        document_ids: index of each document among all prompts; seed and index determine the
            document's PRNG key.
        seeds: RNG seed of each document.
        plan: solver, times and guidance.
        model: the network.
        paradigm: the paradigm, whose sampler fills the gaps.
    """
    model, params = unstack.unstack_layers(model, params)
    keys = jax.vmap(lambda seed, n: jax.random.fold_in(jax.random.key(seed), n))(
        seeds, document_ids
    )
    table = model.apply({"params": params}, method="embedding_table")
    network = bound_model.BoundModel(model, params)
    return paradigm.sampler(network, table, keys, canvas, plan)


def sample_batch(*inputs: PyTree, model: Model, paradigm: Paradigm) -> SampleOutput:
    """Fill the gaps of a batch of canvases in one program; see `make_sampler` for the arguments."""
    return steps.sample(make_sampler(*inputs, model=model, paradigm=paradigm))
