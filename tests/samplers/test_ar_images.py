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
from oneflow_jax.canvas import Attend
from oneflow_jax.data.document import Document, Text
from oneflow_jax.flows import predictions
from oneflow_jax.nn import bound_model
from oneflow_jax.samplers import ar_images, ode, solve, token_sampling
from tests import tiny
from tests.nn.test_kv_cache import cut
from tests.nn.test_two_tower import HEADS
from tests.paradigms.oracle import SEED, keys
from tests.samplers.test_ar_guidance import GUIDED, LENGTH, PATCHES, PICTURE, of_kind

TEXTS = ("a picture of red", "blue", "here is green and")


def net_of(kind):
    """A real network, and the vocabulary as vectors."""
    heads = HEADS if kind == "flow" else HEADS[:1]
    model = tiny.network(heads)
    net = bound_model.Bound(
        dataclasses.replace(model, attend=Attend.MIXED if kind == "flow" else Attend.CAUSAL),
        tiny.parameters(model),
    )
    return net, net.model.apply({"params": net.params}, method="table")


@flax.struct.dataclass
class Setting:
    """Documents that end with a picture, as a network without a cache sees them, and its place."""

    view: canvases.View
    first: jax.Array
    place: ar_images.Place


@functools.cache
def setting(kind):
    """Beginnings of different lengths; the picture of the last is given."""
    net, table = net_of(kind)
    _, lay = of_kind("transfusion" if kind == "flow" else "chameleon")
    rows = [lay.row(Document((Text(text), PICTURE))) for text in TEXTS]
    canvas = jax.tree.map(jnp.asarray, lay.canvas(rows))
    first = jnp.argmax(canvas.is_image, axis=1)
    kinds = canvas.kind if kind == "flow" else jnp.where(canvas.is_image, 1, canvas.kind)
    # Codes have no latents, of whatever width.
    shape = (*canvas.ids.shape, tiny.CODEC.channels)
    canvas = canvas.replace(latents=jnp.broadcast_to(canvas.latents, shape))
    ones = jnp.ones(canvas.ids.shape)
    view = canvases.view(canvas.replace(kind=kinds), table.rows[canvas.ids], canvas.latents, ones)
    outputs, cache = jax.jit(net.prefill)(view, net.cache(len(TEXTS), LENGTH + PATCHES))
    place = ar_images.Place(
        view=cut(view, first, PATCHES),
        source=ar_images.Picture(*cut((canvas.ids, canvas.latents), first, PATCHES)),
        given=jnp.arange(len(TEXTS)) == len(TEXTS) - 1,
        logits=outputs["token_logits"][jnp.arange(len(TEXTS)), first - 1],
        cache=cache.advanced(first),
    )
    return Setting(view, first, place)


def asked(kind, name, **content):
    """What the network says of pictures with this content: after all before them, and alone.

    Of whole documents, and of <image> and the picture as a document; no cache.
    """
    net, _ = net_of(kind)
    view, first = setting(kind).view, setting(kind).first

    @jax.jit
    def said(content):
        def put(old, new):
            place = jax.vmap(lambda x, y, at: jax.lax.dynamic_update_slice_in_dim(x, y, at, 0))
            return place(old, new, first)

        shown = view.replace(**{k: put(getattr(view, k), new) for k, new in content.items()})
        only = cut(shown, first - 1, PATCHES + 1)
        return cut(net(shown)[name], first - 1, PATCHES + 1), net(only)[name]

    return said(content)


def drawn(kind, drawing_, place=None, rows=slice(None)):
    net, table = net_of(kind)
    place = place or setting(kind).place
    return jax.jit(lambda k, p: drawing_(net, table, k, p))(keys(SEED, len(TEXTS))[rows], place)


@pytest.mark.parametrize(("solver", "scale"), [("euler", 0.0), ("euler", 2.5), ("renoise", 2.5)])
def test_a_guided_flow_is_that_of_a_network_without_a_cache(solver, scale):
    plan = ode.schedule(solver, 3)
    made = drawn("flow", ar_images.Flow(predictions.Clean(), plan, GUIDED(scale)))
    place = setting("flow").place
    shape = place.source.latents.shape[1:]
    x = jax.vmap(lambda key: jax.random.normal(key, shape))(keys(SEED, len(TEXTS)))
    for n, (t, until) in enumerate(itertools.pairwise((*plan.times, 1.0)), 1):
        clock = jnp.full((len(TEXTS), PATCHES), t)
        after, alone_ = (told[:, 1:] for told in asked("flow", "image", latents=x, clock=clock))
        assert np.abs(after - alone_).max() > 1e-2
        clean = alone_ + scale * (after - alone_)
        if solver == "renoise":
            luck = solve.keys_of_step(keys(SEED, len(TEXTS)), jnp.int32(n))
            fresh = jax.vmap(lambda key: jax.random.normal(key, shape))(luck)
            x = (1 - until) * fresh + until * clean
        else:
            x = x + (until - t) / (1 - t) * (clean - x)
    np.testing.assert_allclose(made.picture.latents[:-1], x[:-1], atol=1e-5)
    np.testing.assert_array_equal(made.picture.latents[-1], place.source.latents[-1])
    # What comes after the picture is not guided.
    shown = {"latents": made.picture.latents, "clock": jnp.ones((len(TEXTS), PATCHES))}
    after, _ = asked("flow", "token_logits", **shown)
    np.testing.assert_allclose(made.logits, after[:, -1], atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 2.5])
def test_guided_codes_are_those_of_a_network_without_a_cache(scale):
    """The likeliest each time; and the token after the last is not guided."""
    paradigm, _ = of_kind("chameleon")
    _, table = net_of("codes")
    first, stop = paradigm.codes
    draw = ar_images.Codes(
        tiny.VOCAB, paradigm.codes, token_sampling.Choice(temperature=0.0), GUIDED(scale)
    )
    made, place = drawn("codes", draw), setting("codes").place
    ids, unlike = place.source.ids, 0
    for n in range(PATCHES):
        after, alone_ = asked("codes", "token_logits", embeds=table.rows[ids])
        mixed = (alone_ + scale * (after - alone_))[:, n, first:stop]
        best = first + jnp.argmax(mixed, axis=-1)
        unlike += np.sum(best != first + jnp.argmax(after[:, n, first:stop], axis=-1))
        ids = ids.at[:-1, n].set(best[:-1])
    np.testing.assert_array_equal(made.picture.ids, ids)
    assert unlike > 0
    after, _ = asked("codes", "token_logits", embeds=table.rows[ids])
    np.testing.assert_allclose(made.logits, after[:, -1], atol=1e-5)
    np.testing.assert_array_equal(made.cache.length, place.cache.length)


@pytest.mark.parametrize(("kind", "solver"), [("flow", "heun"), ("flow", "renoise"), ("codes", "")])
def test_pictures_do_not_depend_on_neighbours(kind, solver):
    codes = of_kind("chameleon")[0].codes
    draw = (
        ar_images.Flow(predictions.Clean(), ode.schedule(solver, 2), GUIDED(2.0))
        if kind == "flow"
        else ar_images.Codes(tiny.VOCAB, codes, token_sampling.Choice(), GUIDED(2.0))
    )
    whole, place = drawn(kind, draw), setting(kind).place
    rest = jax.tree.map(lambda x: x[1:2], place.replace(cache=None))
    cache = jax.tree.map(lambda x: x[:, 1:2] if x.ndim > 1 else x[1:2], place.cache)
    one = drawn(kind, draw, rest.replace(cache=cache), slice(1, 2))
    np.testing.assert_array_equal(one.picture.ids[0], whole.picture.ids[1])
    np.testing.assert_allclose(one.picture.latents[0], whole.picture.latents[1], atol=1e-5)
    np.testing.assert_allclose(one.logits[0], whole.logits[1], atol=1e-5)
