"""Guided pictures from left to right are those of a network that is shown whole documents."""

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


def make_model(kind):
    """A real network, and the vocabulary as vectors."""
    heads = HEADS if kind == "flow" else HEADS[:1]
    model = tiny.network(heads)
    net = bound_model.BoundModel(
        dataclasses.replace(
            model, attend=AttentionPattern.MIXED if kind == "flow" else AttentionPattern.CAUSAL
        ),
        tiny.parameters(model),
    )
    return net, net.model.apply({"params": net.params}, method="table")


@flax.struct.dataclass
class ImageCase:
    """Documents that end with a picture, as a network without a cache sees them, and its place."""

    view: canvases.NoisyCanvas
    first: jax.Array
    place: ar_images.ImageContext


@functools.cache
def make_case(kind):
    """Beginnings of different lengths; the picture of the last is given."""
    net, table = make_model(kind)
    _, lay = make_paradigm("transfusion" if kind == "flow" else "chameleon")
    rows = [lay.row(Document((Text(text), TOY_IMAGE))) for text in TEXTS]
    canvas = jax.tree.map(jnp.asarray, lay.canvas(rows))
    first = jnp.argmax(canvas.is_image, axis=1)
    kinds = canvas.kind if kind == "flow" else jnp.where(canvas.is_image, 1, canvas.kind)
    # Codes have no latents, of whatever width.
    shape = (*canvas.ids.shape, tiny.CODEC.channels)
    canvas = canvas.replace(latents=jnp.broadcast_to(canvas.latents, shape))
    ones = jnp.ones(canvas.ids.shape)
    view = canvases.noisy_canvas(
        canvas.replace(kind=kinds), table.rows[canvas.ids], canvas.latents, ones
    )
    outputs, cache = jax.jit(net.prefill)(view, net.cache(len(TEXTS), LENGTH + PATCHES))
    place = ar_images.ImageContext(
        view=slice_slots(view, first, PATCHES),
        source=ar_images.ImageContent(*slice_slots((canvas.ids, canvas.latents), first, PATCHES)),
        given=jnp.arange(len(TEXTS)) == len(TEXTS) - 1,
        logits=outputs["token_logits"][jnp.arange(len(TEXTS)), first - 1],
        cache=cache.advanced(first),
    )
    return ImageCase(view, first, place)


def reference_outputs(kind, head, **content):
    """What the network says of pictures with this content: after all before them, and alone.

    Of whole documents, and of <image> and the picture as a document; no cache.
    """
    net, _ = make_model(kind)
    view, first = make_case(kind).view, make_case(kind).first

    @jax.jit
    def said(content):
        def put(old, new):
            place = jax.vmap(lambda x, y, at: jax.lax.dynamic_update_slice_in_dim(x, y, at, 0))
            return place(old, new, first)

        shown = view.replace(**{k: put(getattr(view, k), new) for k, new in content.items()})
        only = slice_slots(shown, first - 1, PATCHES + 1)
        return slice_slots(net(shown)[head], first - 1, PATCHES + 1), net(only)[head]

    return said(content)


def sample_images(kind, image_sampler, context=None, rows=slice(None)):
    net, table = make_model(kind)
    context = context or make_case(kind).place
    return jax.jit(lambda k, p: image_sampler(net, table, k, p))(
        row_keys(SEED, len(TEXTS))[rows], context
    )


@pytest.mark.parametrize(("solver", "scale"), [("euler", 0.0), ("euler", 2.5), ("renoise", 2.5)])
def test_a_guided_flow_is_that_of_a_network_without_a_cache(solver, scale):
    plan = ode.make_schedule(solver, 3)
    made = sample_images(
        "flow", ar_images.FlowImageSampler(predictions.X1Prediction(), plan, make_guidance(scale))
    )
    place = make_case("flow").place
    shape = place.source.latents.shape[1:]
    x = jax.vmap(lambda key: jax.random.normal(key, shape))(row_keys(SEED, len(TEXTS)))
    for n, (t, until) in enumerate(itertools.pairwise((*plan.times, 1.0)), 1):
        clock = jnp.full((len(TEXTS), PATCHES), t)
        after, alone_ = (
            told[:, 1:] for told in reference_outputs("flow", "image", latents=x, clock=clock)
        )
        assert np.abs(after - alone_).max() > 1e-2
        clean = alone_ + scale * (after - alone_)
        if solver == "renoise":
            luck = solve.step_keys(row_keys(SEED, len(TEXTS)), jnp.int32(n))
            fresh = jax.vmap(lambda key: jax.random.normal(key, shape))(luck)
            x = (1 - until) * fresh + until * clean
        else:
            x = x + (until - t) / (1 - t) * (clean - x)
    np.testing.assert_allclose(made.picture.latents[:-1], x[:-1], atol=1e-5)
    np.testing.assert_array_equal(made.picture.latents[-1], place.source.latents[-1])
    # What comes after the picture is not guided.
    shown = {"latents": made.picture.latents, "clock": jnp.ones((len(TEXTS), PATCHES))}
    after, _ = reference_outputs("flow", "token_logits", **shown)
    np.testing.assert_allclose(made.logits, after[:, -1], atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 2.5])
def test_guided_codes_are_those_of_a_network_without_a_cache(scale):
    """The likeliest each time; and the token after the last is not guided."""
    paradigm, _ = make_paradigm("chameleon")
    _, table = make_model("codes")
    first, stop = paradigm.codes
    draw = ar_images.TokenImageSampler(
        tiny.VOCAB,
        paradigm.codes,
        token_sampling.TokenSampling(temperature=0.0),
        make_guidance(scale),
    )
    made, place = sample_images("codes", draw), make_case("codes").place
    ids, unlike = place.source.ids, 0
    for n in range(PATCHES):
        after, alone_ = reference_outputs("codes", "token_logits", embeds=table.rows[ids])
        mixed = (alone_ + scale * (after - alone_))[:, n, first:stop]
        best = first + jnp.argmax(mixed, axis=-1)
        unlike += np.sum(best != first + jnp.argmax(after[:, n, first:stop], axis=-1))
        ids = ids.at[:-1, n].set(best[:-1])
    np.testing.assert_array_equal(made.picture.ids, ids)
    assert unlike > 0
    after, _ = reference_outputs("codes", "token_logits", embeds=table.rows[ids])
    np.testing.assert_allclose(made.logits, after[:, -1], atol=1e-5)
    np.testing.assert_array_equal(made.cache.length, place.cache.length)


@pytest.mark.parametrize(("kind", "solver"), [("flow", "heun"), ("flow", "renoise"), ("codes", "")])
def test_pictures_do_not_depend_on_neighbours(kind, solver):
    codes = make_paradigm("chameleon")[0].codes
    draw = (
        ar_images.FlowImageSampler(
            predictions.X1Prediction(), ode.make_schedule(solver, 2), make_guidance(2.0)
        )
        if kind == "flow"
        else ar_images.TokenImageSampler(
            tiny.VOCAB, codes, token_sampling.TokenSampling(), make_guidance(2.0)
        )
    )
    whole, place = sample_images(kind, draw), make_case(kind).place
    rest = jax.tree.map(lambda x: x[1:2], place.replace(cache=None))
    cache = jax.tree.map(lambda x: x[:, 1:2] if x.ndim > 1 else x[1:2], place.cache)
    one = sample_images(kind, draw, rest.replace(cache=cache), slice(1, 2))
    np.testing.assert_array_equal(one.picture.ids[0], whole.picture.ids[1])
    np.testing.assert_allclose(one.picture.latents[0], whole.picture.latents[1], atol=1e-5)
    np.testing.assert_allclose(one.logits[0], whole.logits[1], atol=1e-5)
