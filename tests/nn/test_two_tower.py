"""Two sets of weights: whose parameters a slot goes by, and that all slots see one another."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import Attend, Head, Kind
from oneflow_jax.data import toy
from oneflow_jax.data.document import Document, Text
from oneflow_jax.nn import bound_model, model, two_tower
from tests import tiny

SLOTS = 40
HEADS = (Head("token_logits", tiny.VOCAB, "vocab"), Head("image", tiny.CODEC.channels, "channels"))
WORDS = ("a picture of red", "here is blue")


def network(make=two_tower.TwoTowers, **changes):
    size = dataclasses.replace(tiny.SIZE, **changes)
    return make(size, tiny.VOCAB, tiny.EMBED, HEADS, Attend.MIXED)


@functools.cache
def shown():
    """Documents of words and pictures, and two of words alone; and how long each is."""
    lay = dataclasses.replace(tiny.layout_of(SLOTS, 0), markers=True)
    rows = [row for row in map(lay.row, toy.Toy(documents=20)) if len(row["kind"]) <= SLOTS][:3]
    rows += [lay.row(Document((Text(text),))) for text in WORDS]
    return jax.tree.map(jnp.asarray, lay.canvas(rows)), [len(row["kind"]) for row in rows]


@functools.cache
def compiled(net):
    return jax.jit(lambda params, view: net.apply({"params": params}, view))


def told(params, view, net=None):
    outputs = compiled(net or network())(params, view)
    return {name: np.asarray(values) for name, values in outputs.items()}


def named(tree):
    """The arrays of a tree of parameters by name."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def changed(params, pattern):
    """Other values for every parameter whose name the pattern finds."""
    found = iter(named(params))
    return jax.tree.map(lambda x: 1.5 * x + 0.3 if re.search(pattern, next(found)) else x, params)


def places(canvas):
    """Where words, and where patches, are."""
    return np.asarray(canvas.is_text), np.asarray(canvas.is_image)


def test_every_parameter_is_of_words_or_of_pictures():
    whole = named(tiny.parameters(network()))
    pictures = {name for name in whole if re.search(two_tower.OF_PICTURES, name)}
    words = {name for name in whole if re.search(two_tower.OF_WORDS, name)}
    assert pictures.isdisjoint(words)
    assert pictures | words == set(whole)
    assert {name.split("/")[0] for name in pictures - words} == {
        "backbone", "clock", "image_in", "outputs_image",
    }  # fmt: skip
    assert {name.split("/")[0] for name in words} == {
        "backbone", "mask", "outputs_token_logits", "rows", "text_in",
    }  # fmt: skip
    tower = {
        kind: {name.removeprefix(f"backbone/blocks/{kind}/") for name in of if f"/{kind}/" in name}
        for kind, of in (("image", pictures), ("text", words))
    }
    assert tower["image"] == tower["text"]
    assert "attention/query/kernel" in tower["text"]
    one_tower = named(tiny.parameters(network(model.Model)))
    inside = {name.removeprefix("backbone/blocks/") for name in one_tower if "/blocks/" in name}
    assert inside == tower["text"]


def test_documents_without_pictures_do_not_depend_on_what_is_for_pictures():
    """To the last bit; and it is what is for pictures that pictures depend on."""
    canvas, lengths = shown()
    view, params = tiny.noisy_view(canvas), tiny.parameters(network())
    before = told(params, view)
    after = told(changed(params, two_tower.OF_PICTURES), view)
    for row, length in list(enumerate(lengths))[-len(WORDS) :]:
        logits = (outputs["token_logits"][row, :length] for outputs in (before, after))
        np.testing.assert_array_equal(*logits)
    _, image = places(canvas)
    assert (before["image"][image] != after["image"][image]).all()


@pytest.mark.parametrize("pattern", ["blocks/image/", "image_in/", "clock/", "blocks/text/"])
def test_what_slots_tell_of_themselves_goes_by_their_own_tower(pattern):
    """Keys and values of the first layer, as its cache has them."""
    canvas, _ = shown()
    view, params = tiny.noisy_view(canvas), tiny.parameters(network())

    @jax.jit
    def kept(params):
        net = bound_model.Bound(network(), params)
        _, cache = net.prefill(view, net.cache(view.kind.shape[0], SLOTS))
        return cache.key[0], cache.value[0]

    text, image = places(canvas)
    same, other = (image, text) if "text" in pattern else (text, image)
    for one, two in zip(kept(params), kept(changed(params, pattern)), strict=True):
        equal = np.all(np.asarray(one) == np.asarray(two), axis=(-1, -2))
        assert equal[same].all()
        assert not equal[other].any()


@pytest.mark.parametrize("tower", ["text", "image"])
def test_what_slots_ask_and_make_of_it_goes_by_their_own_tower(tower):
    """All that a last layer does but its keys and values, which others see."""
    canvas, _ = shown()
    view, net = tiny.noisy_view(canvas), network(layers=1)
    params = tiny.parameters(net)
    text, image = places(canvas)
    same, other = (image, text) if tower == "text" else (text, image)
    for part in ("attention/query", "attention/out", "mlp_norm", "mlp/"):
        found = told(changed(params, f"blocks/{tower}/{part}"), view, net)
        for name, expected in told(params, view, net).items():
            equal = np.all(found[name] == expected, axis=-1)
            assert equal[same].all()
            assert not equal[other].all()


def test_attention_is_joint():
    """A patch changes what later words see, and a word what later patches see; not the reverse."""
    canvas, lengths = shown()
    view, params = tiny.noisy_view(canvas), tiny.parameters(network())
    first = int(np.flatnonzero(canvas.is_image[0])[0])
    after = first + tiny.CODEC.grid[0] * tiny.CODEC.grid[1]
    assert canvas.kind[0, after] == Kind.TEXT
    before = told(params, view)
    patch = view.replace(latents=view.latents.at[0, first].add(1.0))
    by_patch = told(params, patch)["token_logits"][0] != before["token_logits"][0]
    assert by_patch[first : lengths[0]].any(-1).all()
    assert not by_patch[:first].any()
    word = view.replace(embeds=view.embeds.at[0, first - 1].add(1.0))
    by_word = told(params, word)["image"][0] != before["image"][0]
    assert by_word[first:after].any(-1).all()
    assert not by_word[: first - 1].any()


def test_words_know_no_time():
    canvas, _ = shown()
    view, params = tiny.noisy_view(canvas), tiny.parameters(network())
    text, image = places(canvas)
    before = told(params, view)
    elsewhen = told(params, view.replace(clock=jnp.where(canvas.is_text, 0.5, view.clock)))
    exists = text | image
    np.testing.assert_array_equal(before["token_logits"][exists], elsewhen["token_logits"][exists])
    later = told(params, view.replace(clock=jnp.where(canvas.is_image, 0.5, view.clock)))
    assert (before["image"][image] != later["image"][image]).any(-1).all()


def test_widened_copies_the_tower_of_words():
    params = tiny.parameters(network())
    wide = two_tower.widened(params)
    blocks = wide["backbone"]["blocks"]
    tiny.assert_trees_close(blocks["image"], params["backbone"]["blocks"]["text"], atol=0)
    kept, old = jax.tree.map(lambda x: x, wide), jax.tree.map(lambda x: x, params)
    del kept["backbone"]["blocks"]["image"], old["backbone"]["blocks"]["image"]
    tiny.assert_trees_close(kept, old, atol=0)
    # In memory of their own: a donated state must not hold one buffer twice.
    leaves = zip(jax.tree.leaves(blocks["image"]), jax.tree.leaves(blocks["text"]), strict=True)
    assert all(one.unsafe_buffer_pointer() != two.unsafe_buffer_pointer() for one, two in leaves)
    assert np.any(
        params["backbone"]["blocks"]["image"]["mlp"]["up"]["kernel"]
        != blocks["image"]["mlp"]["up"]["kernel"]
    )


def test_equal_towers_are_one_tower():
    """What the one-tower model adds to clean words for their time is a bias."""
    canvas, _ = shown()
    one = network(model.Model)
    params = tiny.parameters(one)
    view = tiny.noisy_view(canvas)
    view = view.replace(clock=jnp.where(canvas.is_text, 1.0, view.clock))
    clean = one.apply(
        {"params": params}, jnp.ones((1, 1)), method=lambda net, clock: net.clock(clock)
    )[0, 0]
    blocks = params["backbone"]["blocks"]
    equal = params | {
        "backbone": params["backbone"] | {"blocks": {"text": blocks, "image": blocks}},
        "text_in": params["text_in"] | {"bias": params["text_in"]["bias"] + clean},
    }
    exists = np.asarray(canvas.kind) != Kind.PAD
    expected, made = told(params, view, one), told(equal, view)
    for name, values in expected.items():
        np.testing.assert_allclose(made[name][exists], values[exists], atol=1e-5)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputed_or_kept_it_is_the_same(remat):
    view, params = tiny.noisy_view(shown()[0]), tiny.parameters(network())
    tiny.assert_trees_close(told(params, view, network(remat=remat)), told(params, view), atol=1e-6)


def test_with_a_cache_it_is_all_at_once():
    """A beginning of each row, then words one by one and pictures whole."""
    canvas, lengths = shown()
    view, params = tiny.noisy_view(canvas), tiny.parameters(network())
    net, whole = bound_model.Bound(network(), params), told(params, view)
    prefill, after = jax.jit(net.prefill), jax.jit(net.after)
    _, empty = prefill(view, net.cache(len(lengths), SLOTS + 8))
    checked = {Kind.TEXT: 0, Kind.IMAGE: 0}
    for row in (0, len(lengths) - 1):
        cache = jax.tree.map(lambda x: x[:, row : row + 1], (empty.key, empty.value))  # noqa: B023
        cache = empty.replace(key=cache[0], value=cache[1], length=jnp.array([2]))
        slot, kind, span = 2, np.asarray(canvas.kind[row]), np.asarray(canvas.span[row])
        while slot < lengths[row]:
            count = int(np.sum(span == span[slot])) if kind[slot] == Kind.IMAGE else 1
            piece = jax.tree.map(lambda x: x[row : row + 1, slot : slot + count], view)  # noqa: B023
            outputs, cache = after(piece, cache)
            cache = cache.advanced(jnp.array([count]))
            for name, expected in whole.items():
                np.testing.assert_allclose(
                    outputs[name][0], expected[row, slot : slot + count], atol=1e-5
                )
            checked[Kind(kind[slot])] += count
            slot += count
    assert min(checked.values()) >= 4
