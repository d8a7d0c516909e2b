"""Tests of the two-tower model: the parameters that each slot uses, and joint attention."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import AttentionPattern, Head, Modality
from oneflow_jax.data import toy
from oneflow_jax.data.document import Document, Text
from oneflow_jax.nn import bound_model, model, two_tower
from tests import tiny

NUM_SLOTS = 40
HEADS = (Head("token_logits", tiny.VOCAB, "vocab"), Head("image", tiny.CODEC.channels, "channels"))
TEXTS = ("a picture of red", "here is blue")


def make_model(model_class=two_tower.TwoTowerModel, **overrides):
    size = dataclasses.replace(tiny.TRANSFORMER_CONFIG, **overrides)
    return model_class(size, tiny.VOCAB, tiny.EMBED, HEADS, AttentionPattern.MIXED)


@functools.cache
def make_canvas():
    """Return documents with images and two documents of text only, and their lengths."""
    lay = dataclasses.replace(tiny.make_layout(NUM_SLOTS, 0), has_markers=True)
    rows = [
        row for row in map(lay.row, toy.Toy(documents=20)) if len(row["modality"]) <= NUM_SLOTS
    ][:3]
    rows += [lay.row(Document((Text(text),))) for text in TEXTS]
    return jax.tree.map(jnp.asarray, lay.canvas(rows)), [len(row["modality"]) for row in rows]


@functools.cache
def jit_apply(net):
    return jax.jit(lambda params, view: net.apply({"params": params}, view))


def run_model(params, view, net=None):
    outputs = jit_apply(net or make_model())(params, view)
    return {name: np.asarray(values) for name, values in outputs.items()}


def flatten_params(tree):
    """Return the arrays of a parameter tree, by name of the parameter."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def perturb_params(params, pattern):
    """Change every parameter whose name matches the pattern."""
    names = iter(flatten_params(params))
    return jax.tree.map(lambda x: 1.5 * x + 0.3 if re.search(pattern, next(names)) else x, params)


def modality_masks(canvas):
    """Return the masks of text slots and of image slots."""
    return np.asarray(canvas.is_text), np.asarray(canvas.is_image)


def test_every_parameter_belongs_to_the_text_or_the_image_tower():
    whole = flatten_params(tiny.parameters(make_model()))
    pictures = {name for name in whole if re.search(two_tower.IMAGE_PARAMS, name)}
    words = {name for name in whole if re.search(two_tower.TEXT_PARAMS, name)}
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
    one_tower = flatten_params(tiny.parameters(make_model(model.Model)))
    inside = {name.removeprefix("backbone/blocks/") for name in one_tower if "/blocks/" in name}
    assert inside == tower["text"]


def test_text_documents_do_not_depend_on_image_parameters():
    """Check, bit by bit, that image parameters affect only the documents with images."""
    canvas, lengths = make_canvas()
    view, params = tiny.noisy_canvas(canvas), tiny.parameters(make_model())
    before = run_model(params, view)
    after = run_model(perturb_params(params, two_tower.IMAGE_PARAMS), view)
    for row, length in list(enumerate(lengths))[-len(TEXTS) :]:
        logits = (outputs["token_logits"][row, :length] for outputs in (before, after))
        np.testing.assert_array_equal(*logits)
    _, image = modality_masks(canvas)
    assert (before["image"][image] != after["image"][image]).all()


@pytest.mark.parametrize("pattern", ["blocks/image/", "image_in/", "clock/", "blocks/text/"])
def test_keys_and_values_come_from_the_slots_own_tower(pattern):
    """Check in the first layer's KV cache which tower computes keys and values of a slot."""
    canvas, _ = make_canvas()
    view, params = tiny.noisy_canvas(canvas), tiny.parameters(make_model())

    @jax.jit
    def cached_keys_values(params):
        net = bound_model.BoundModel(make_model(), params)
        _, cache = net.prefill(view, net.init_cache(view.modality.shape[0], NUM_SLOTS))
        return cache.key[0], cache.value[0]

    text, image = modality_masks(canvas)
    same, changed = (image, text) if "text" in pattern else (text, image)
    for one, two in zip(
        cached_keys_values(params), cached_keys_values(perturb_params(params, pattern)), strict=True
    ):
        equal = np.all(np.asarray(one) == np.asarray(two), axis=(-1, -2))
        assert equal[same].all()
        assert not equal[changed].any()


@pytest.mark.parametrize("tower", ["text", "image"])
def test_queries_output_projection_and_mlp_come_from_the_slots_own_tower(tower):
    """Check that a slot's output depends on the parameters of its own tower in the last layer."""
    canvas, _ = make_canvas()
    view, net = tiny.noisy_canvas(canvas), make_model(layers=1)
    params = tiny.parameters(net)
    text, image = modality_masks(canvas)
    same, changed = (image, text) if tower == "text" else (text, image)
    for part in ("attention/query", "attention/out", "mlp_norm", "mlp/"):
        actual = run_model(perturb_params(params, f"blocks/{tower}/{part}"), view, net)
        for name, expected in run_model(params, view, net).items():
            equal = np.all(actual[name] == expected, axis=-1)
            assert equal[same].all()
            assert not equal[changed].all()


def test_attention_is_joint():
    """Check that text and patches affect each other, but only in later slots."""
    canvas, lengths = make_canvas()
    view, params = tiny.noisy_canvas(canvas), tiny.parameters(make_model())
    first = int(np.flatnonzero(canvas.is_image[0])[0])
    after = first + tiny.CODEC.grid[0] * tiny.CODEC.grid[1]
    assert canvas.modality[0, after] == Modality.TEXT
    before = run_model(params, view)
    patch = view.replace(latents=view.latents.at[0, first].add(1.0))
    by_patch = run_model(params, patch)["token_logits"][0] != before["token_logits"][0]
    assert by_patch[first : lengths[0]].any(-1).all()
    assert not by_patch[:first].any()
    word = view.replace(embeds=view.embeds.at[0, first - 1].add(1.0))
    by_word = run_model(params, word)["image"][0] != before["image"][0]
    assert by_word[first:after].any(-1).all()
    assert not by_word[: first - 1].any()


def test_text_outputs_do_not_depend_on_text_time():
    canvas, _ = make_canvas()
    view, params = tiny.noisy_canvas(canvas), tiny.parameters(make_model())
    text, image = modality_masks(canvas)
    before = run_model(params, view)
    elsewhen = run_model(params, view.replace(time=jnp.where(canvas.is_text, 0.5, view.time)))
    exists = text | image
    np.testing.assert_array_equal(before["token_logits"][exists], elsewhen["token_logits"][exists])
    later = run_model(params, view.replace(time=jnp.where(canvas.is_image, 0.5, view.time)))
    assert (before["image"][image] != later["image"][image]).any(-1).all()


def test_image_tower_is_initialized_from_the_text_tower():
    params = tiny.parameters(make_model(two_tower.TextModel))
    wide = two_tower.add_image_tower(params)
    blocks = wide["backbone"]["blocks"]
    tiny.assert_trees_close(blocks["image"], params["backbone"]["blocks"], atol=0)
    assert jax.tree.map(jnp.shape, wide) == jax.tree.map(jnp.shape, tiny.parameters(make_model()))
    tiny.assert_trees_close(two_tower.select_text_tower(wide), params, atol=0)
    # The copy has its own buffers: a donated state must not contain one buffer twice.
    leaves = zip(jax.tree.leaves(blocks["image"]), jax.tree.leaves(blocks["text"]), strict=True)
    assert all(one.unsafe_buffer_pointer() != two.unsafe_buffer_pointer() for one, two in leaves)


def test_equal_towers_compute_the_text_model():
    """Check that a model with two equal towers has the outputs of the model with one tower."""
    canvas, _ = make_canvas()
    one = make_model(two_tower.TextModel)
    params, view = tiny.parameters(one), tiny.noisy_canvas(canvas)
    exists = np.asarray(canvas.modality) != Modality.PAD
    expected, actual = (
        run_model(params, view, one),
        run_model(two_tower.add_image_tower(params), view),
    )
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name][exists], values[exists], atol=1e-5)


def test_only_the_text_model_has_no_time_embedding_of_text():
    canvas, _ = make_canvas()
    params = tiny.parameters(make_model(model.Model))
    view = tiny.noisy_canvas(canvas)
    exists = np.asarray(canvas.modality) != Modality.PAD
    usual, text = (
        run_model(params, view, make_model(kind))["token_logits"][exists]
        for kind in (model.Model, two_tower.TextModel)
    )
    assert (usual != text).any(-1).all()


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_does_not_change_outputs(remat):
    view, params = tiny.noisy_canvas(make_canvas()[0]), tiny.parameters(make_model())
    tiny.assert_trees_close(
        run_model(params, view, make_model(remat=remat)), run_model(params, view), atol=1e-6
    )


def test_decoding_with_a_cache_equals_a_full_forward_pass():
    """Check prefill and decoding against a full pass; images are decoded as a whole."""
    canvas, lengths = make_canvas()
    view, params = tiny.noisy_canvas(canvas), tiny.parameters(make_model())
    net, whole = bound_model.BoundModel(make_model(), params), run_model(params, view)
    prefill, after = jax.jit(net.prefill), jax.jit(net.decode)
    _, empty = prefill(view, net.init_cache(len(lengths), NUM_SLOTS + 8))
    checked = {Modality.TEXT: 0, Modality.IMAGE: 0}
    for row in (0, len(lengths) - 1):
        cache = jax.tree.map(lambda x: x[:, row : row + 1], (empty.key, empty.value))  # noqa: B023
        cache = empty.replace(key=cache[0], value=cache[1], length=jnp.array([2]))
        slot, kind, span = 2, np.asarray(canvas.modality[row]), np.asarray(canvas.span[row])
        while slot < lengths[row]:
            count = int(np.sum(span == span[slot])) if kind[slot] == Modality.IMAGE else 1
            piece = jax.tree.map(lambda x: x[row : row + 1, slot : slot + count], view)  # noqa: B023
            outputs, cache = after(piece, cache)
            cache = cache.advance(jnp.array([count]))
            for name, expected in whole.items():
                np.testing.assert_allclose(
                    outputs[name][0], expected[row, slot : slot + count], atol=1e-5
                )
            checked[Modality(kind[slot])] += count
            slot += count
    assert min(checked.values()) >= 4
