"""Tests that guided images, decoded with a KV cache, equal those of a network without a cache."""

import dataclasses
import functools
import itertools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern
from oneflow_jax.data.document import Document, Text
from oneflow_jax.flows import predictions
from oneflow_jax.nn import bound_model
from oneflow_jax.samplers import ar_images, ode, solve, token_sampling
from tests import tiny
from tests.nn.test_kv_cache import slice_slots
from tests.nn.test_two_tower import HEADS
from tests.paradigms.oracle import SEED, row_keys
from tests.samplers.test_ar_guidance import LENGTH, PATCHES, TOY_IMAGE, make_guidance, make_paradigm

TEXTS = ("a picture of red", "blue", "here is green and")


@functools.cache
def make_model(kind):
    """Return a real network and its embedding table."""
    heads = HEADS if kind == "flow" else HEADS[:1]
    model = tiny.network(heads)
    net = bound_model.BoundModel(
        dataclasses.replace(
            model,
            attention_pattern=AttentionPattern.MIXED if kind == "flow" else AttentionPattern.CAUSAL,
        ),
        tiny.parameters(model),
    )
    return net, net.model.apply({"params": net.params}, method="embedding_table")


@flax.struct.dataclass
class ImageCase:
    """Documents that end with an image: the whole network input, and the context for decoding."""

    view: canvases.NoisyCanvas
    image_start: jax.Array
    context: ar_images.ImageContext


@functools.cache
def make_case(kind):
    """Return prompts of different lengths; the image of the last prompt is given."""
    net, table = make_model(kind)
    _, lay = make_paradigm("transfusion" if kind == "flow" else "chameleon")
    rows = [lay.row(Document((Text(text), TOY_IMAGE))) for text in TEXTS]
    canvas = jax.tree.map(jnp.asarray, lay.canvas(rows))
    first = jnp.argmax(canvas.is_image, axis=1)
    kinds = canvas.modality if kind == "flow" else jnp.where(canvas.is_image, 1, canvas.modality)
    # Image codes have no latents.
    shape = (*canvas.ids.shape, tiny.CODEC.channels)
    canvas = canvas.replace(latents=jnp.broadcast_to(canvas.latents, shape))
    ones = jnp.ones(canvas.ids.shape)
    view = canvases.noisy_canvas(
        canvas.replace(modality=kinds), table.embedding[canvas.ids], canvas.latents, ones
    )
    outputs, cache = jax.jit(net.prefill)(view, net.init_cache(len(TEXTS), LENGTH + PATCHES))
    place = ar_images.ImageContext(
        view=slice_slots(view, first, PATCHES),
        prompt_image=ar_images.ImageContent(
            *slice_slots((canvas.ids, canvas.latents), first, PATCHES)
        ),
        is_given=jnp.arange(len(TEXTS)) == len(TEXTS) - 1,
        logits=outputs["token_logits"][jnp.arange(len(TEXTS)), first - 1],
        cache=cache.advance(first),
    )
    return ImageCase(view, first, place)


@functools.cache
def make_reference(kind, head):
    """Return the function from image content to the conditional and unconditional outputs.

    The network sees the whole document, or <image> and the image only. No KV cache is used.
    """
    net, _ = make_model(kind)
    view, first = make_case(kind).view, make_case(kind).image_start

    @jax.jit
    def branch_outputs(content):
        def fill_image(old, new):
            place = jax.vmap(lambda x, y, at: jax.lax.dynamic_update_slice_in_dim(x, y, at, 0))
            return place(old, new, first)

        filled = view.replace(
            **{k: fill_image(getattr(view, k), new) for k, new in content.items()}
        )
        only = slice_slots(filled, first - 1, PATCHES + 1)
        return slice_slots(net(filled)[head], first - 1, PATCHES + 1), net(only)[head]

    return branch_outputs


def sample_images(kind, image_sampler, context=None, rows=slice(None)):
    net, table = make_model(kind)
    context = context or make_case(kind).context
    return jax.jit(lambda k, p: image_sampler(net, table, k, p))(
        row_keys(SEED, len(TEXTS))[rows], context
    )


@pytest.mark.parametrize(("solver", "scale"), [("euler", 0.0), ("euler", 2.5), ("renoise", 2.5)])
def test_guided_flow_equals_a_network_without_a_cache(solver, scale):
    plan = ode.make_schedule(solver, 3)
    sampled = sample_images(
        "flow", ar_images.FlowImageSampler(predictions.X1Prediction(), plan, make_guidance(scale))
    )
    place = make_case("flow").context
    shape = place.prompt_image.latents.shape[1:]
    x = jax.vmap(lambda key: jax.random.normal(key, shape))(row_keys(SEED, len(TEXTS)))
    for n, (t, until) in enumerate(itertools.pairwise((*plan.times, 1.0)), 1):
        clock = jnp.full((len(TEXTS), PATCHES), t)
        after, alone_ = (
            outputs[:, 1:]
            for outputs in make_reference("flow", "image")({"latents": x, "time": clock})
        )
        assert np.abs(after - alone_).max() > 1e-2
        clean = alone_ + scale * (after - alone_)
        if solver == "renoise":
            luck = solve.step_keys(row_keys(SEED, len(TEXTS)), jnp.int32(n))
            fresh = jax.vmap(lambda key: jax.random.normal(key, shape))(luck)
            x = (1 - until) * fresh + until * clean
        else:
            x = x + (until - t) / (1 - t) * (clean - x)
    np.testing.assert_allclose(sampled.image.latents[:-1], x[:-1], atol=1e-5)
    np.testing.assert_array_equal(sampled.image.latents[-1], place.prompt_image.latents[-1])
    # The token after the image is not guided.
    content = {"latents": sampled.image.latents, "time": jnp.ones((len(TEXTS), PATCHES))}
    after, _ = make_reference("flow", "token_logits")(content)
    np.testing.assert_allclose(sampled.logits, after[:, -1], atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 2.5])
def test_guided_codes_equal_a_network_without_a_cache(scale):
    """Check greedy codes against a network without a cache; the next token is not guided."""
    paradigm, _ = make_paradigm("chameleon")
    _, table = make_model("codes")
    first, stop = paradigm.code_id_range
    draw = ar_images.TokenImageSampler(
        tiny.VOCAB,
        paradigm.code_id_range,
        token_sampling.TokenSampling(temperature=0.0),
        make_guidance(scale),
    )
    sampled, place = sample_images("codes", draw), make_case("codes").context
    ids, unlike = place.prompt_image.ids, 0
    reference = make_reference("codes", "token_logits")
    for n in range(PATCHES):
        after, alone_ = reference({"embeds": table.embedding[ids]})
        mixed = (alone_ + scale * (after - alone_))[:, n, first:stop]
        best = first + jnp.argmax(mixed, axis=-1)
        unlike += np.sum(best != first + jnp.argmax(after[:, n, first:stop], axis=-1))
        ids = ids.at[:-1, n].set(best[:-1])
    np.testing.assert_array_equal(sampled.image.ids, ids)
    assert unlike > 0
    after, _ = reference({"embeds": table.embedding[ids]})
    np.testing.assert_allclose(sampled.logits, after[:, -1], atol=1e-5)
    np.testing.assert_array_equal(sampled.cache.length, place.cache.length)


@pytest.mark.parametrize(("kind", "solver"), [("flow", "heun"), ("flow", "renoise"), ("codes", "")])
def test_images_do_not_depend_on_other_rows(kind, solver):
    codes = make_paradigm("chameleon")[0].code_id_range
    draw = (
        ar_images.FlowImageSampler(
            predictions.X1Prediction(), ode.make_schedule(solver, 2), make_guidance(2.0)
        )
        if kind == "flow"
        else ar_images.TokenImageSampler(
            tiny.VOCAB, codes, token_sampling.TokenSampling(), make_guidance(2.0)
        )
    )
    whole, place = sample_images(kind, draw), make_case(kind).context
    rest = jax.tree.map(lambda x: x[1:2], place.replace(cache=None))
    cache = jax.tree.map(lambda x: x[:, 1:2] if x.ndim > 1 else x[1:2], place.cache)
    one = sample_images(kind, draw, rest.replace(cache=cache), slice(1, 2))
    np.testing.assert_array_equal(one.image.ids[0], whole.image.ids[1])
    np.testing.assert_allclose(one.image.latents[0], whole.image.latents[1], atol=1e-5)
    np.testing.assert_allclose(one.logits[0], whole.logits[1], atol=1e-5)
