import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny


@functools.cache
def jit_model(**overrides):
    """Return the jitted network; its parameters fit every override used here."""
    net, params = tiny.network(**overrides), tiny.parameters(tiny.network())
    return jax.jit(lambda view: net.apply({"params": params}, view))


def make_view(batch_size=1):
    canvas = jax.tree.map(lambda x: x[:batch_size], tiny.packed_batch())
    return tiny.noisy_canvas(canvas)


def compute_loss_and_gradients(net, view):
    def loss(params):
        outputs = net.apply({"params": params}, view)
        return sum(jnp.mean(jnp.square(x)) for x in outputs.values())

    return jax.jit(jax.value_and_grad(loss))(tiny.parameters(tiny.network()))


def test_outputs_are_float32_and_named_by_the_heads():
    view = make_view()
    outputs = jit_model(dtype=jnp.bfloat16)(view)
    widths = {name: (x.shape[-1], x.dtype) for name, x in outputs.items()}
    assert widths == {
        "text_logits": (tiny.VOCAB, jnp.float32),
        "image": (tiny.CODEC.channels, jnp.float32),
    }


def test_parameters_are_float32_for_any_compute_dtype():
    params = tiny.parameters(tiny.network(dtype=jnp.bfloat16))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_bfloat16_is_close_to_float32():
    view = make_view()
    full, half = jit_model()(view), jit_model(dtype=jnp.bfloat16)(view)
    for name in full:
        error = jnp.linalg.norm(half[name] - full[name]) / jnp.linalg.norm(full[name])
        assert 0 < error < 0.05, name


def test_capped_logits_are_a_tanh_of_the_logits():
    view, net = make_view(), tiny.network()
    params = {"params": tiny.parameters(net)}
    plain, capped = net.apply(params, view), net.clone(logit_cap=0.5).apply(params, view)
    expected = 0.5 * jnp.tanh(2 * plain["text_logits"])
    np.testing.assert_allclose(capped["text_logits"], expected, atol=1e-6)
    np.testing.assert_array_equal(capped["image"], plain["image"])
    assert jnp.abs(plain["text_logits"]).max() > 1


def test_scaled_embeddings_equal_a_scaled_projection():
    view, net = make_view(), tiny.network()
    params = tiny.parameters(net)
    kernel = jax.tree.map(lambda x: 3 * x, params["text_in"])
    actual = net.clone(embed_scale=3.0).apply({"params": params}, view)
    expected = net.apply({"params": params | {"text_in": kernel}}, view)
    tiny.assert_trees_close(actual, expected, atol=1e-5)


def test_local_layers_have_a_window_and_a_theta_of_their_own():
    """Check by the outputs of networks of one layer, with slots that are at most 30 apart."""
    view, params = make_view(), tiny.parameters(tiny.network(layers=1))

    def run(**changes):
        net = tiny.network(layers=1, **changes)
        return jax.jit(net.apply)({"params": params}, view)["text_logits"]

    plain, wide = run(), {"sliding_window": 1_000, "global_every": 2}
    np.testing.assert_allclose(run(**wide), plain, atol=1e-5)
    np.testing.assert_allclose(run(**wide, rope_local_theta=50.0), run(rope_theta=50.0), atol=1e-5)
    near = wide | {"sliding_window": 2}
    assert jnp.abs(run(**near) - plain).max() > 1e-3
    np.testing.assert_allclose(run(**near | {"global_every": 1}), plain, atol=1e-5)


def test_post_norms_limit_what_layers_add():
    """Check that scales of 0 after attention and the MLP leave the input of each layer."""
    view = make_view()
    net = tiny.network(post_norms=True)
    params = tiny.parameters(net)
    blocks = dict(params["backbone"]["blocks"])
    for name in ("attention_post_norm", "mlp_post_norm"):
        blocks[name] = jax.tree.map(jnp.zeros_like, blocks[name])
    params = params | {"backbone": params["backbone"] | {"blocks": blocks}}
    x = net.apply({"params": params}, view, method="embed")
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
    x = x * params["backbone"]["norm"]["scale"][None, None]
    head = params["outputs_image"]
    expected = x @ head["kernel"] + head["bias"][None, None]
    outputs = net.apply({"params": params}, view)
    np.testing.assert_allclose(outputs["image"], expected, atol=1e-5)


def test_gelu_replaces_silu():
    view, net = make_view(), tiny.network(layers=1)
    params = tiny.parameters(net)
    gelu = tiny.network(layers=1, activation="gelu_tanh").apply({"params": params}, view)
    assert jnp.abs(gelu["image"] - net.apply({"params": params}, view)["image"]).max() > 1e-3


def test_logits_of_the_likelihood_objective_start_from_the_posterior_of_one_token():
    """Check that a head of zeros gives log p(id | x_t) of the slot alone, for equal priors."""
    net = tiny.network(tiny.paradigm("likelihood").heads)
    params = dict(tiny.parameters(net))
    head = params["outputs_text_logits"]
    params["outputs_text_logits"] = jax.tree.map(jnp.zeros_like, head)
    view = make_view()
    view = view.replace(time=0.5 * view.time)  # The formula is exact up to t = 1/2.
    logits = np.asarray(net.apply({"params": params}, view)["text_logits"][0], np.float64)

    rows = np.asarray(params["rows"], np.float64)
    rows *= np.sqrt(rows.shape[1]) / np.linalg.norm(rows, axis=1, keepdims=True)
    t = np.asarray(view.time[0], np.float64)[:, None, None]
    noise = np.asarray(view.embeds[0])[:, None] - (1 - t) * np.asarray(params["mask"]) - t * rows
    expected = -np.square(noise).sum(-1) / (2 * (1 - t[..., 0]) ** 2)
    log_z = np.logaddexp.reduce(logits, axis=1, keepdims=True)
    expected_log_z = np.logaddexp.reduce(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(logits - log_z, expected - expected_log_z, atol=2e-3)


def test_keys_of_language_models_change_the_parameters():
    """Check which parameters exist; tests/parity compares the outputs with transformers."""
    net = tiny.network(qk_norm=False, qkv_bias=True, rope_layout="mrope").clone(
        embed_width=32, embed_projection=False, tied_embeddings=True
    )
    view = make_view()
    view = view.replace(embeds=jnp.tile(view.embeds, 2))
    params = nn.unbox(jax.eval_shape(net.init, jax.random.key(0), view)["params"])
    assert {"text_in", "outputs_text_logits"}.isdisjoint(params)
    attention = params["backbone"]["blocks"]["attention"]
    assert set(attention) == {"query", "key", "value", "out"}
    assert {name for name, tree in attention.items() if "bias" in tree} == {"query", "key", "value"}
    assert attention["query"]["bias"].shape == (2, 2, 16)


def test_a_tied_head_multiplies_with_the_token_embeddings():
    net = tiny.network().clone(embed_width=32, tied_embeddings=True)
    view = make_view()
    view = view.replace(embeds=jnp.tile(view.embeds, 2))
    params = nn.unbox(jax.jit(net.init)(jax.random.key(0), view)["params"])
    moved = params | {"rows": params["rows"].at[7].multiply(2)}
    before, after = (net.apply({"params": tree}, view)["text_logits"] for tree in (params, moved))
    np.testing.assert_allclose(after[..., 7], 2 * before[..., 7], rtol=1e-5)
    np.testing.assert_array_equal(jnp.delete(after, 7, -1), jnp.delete(before, 7, -1))


def test_no_gradient_flows_through_the_likelihood():
    net = tiny.network(tiny.paradigm("likelihood").heads)
    params = dict(tiny.parameters(net))
    params["outputs_text_logits"] = jax.tree.map(jnp.zeros_like, params["outputs_text_logits"])
    view = make_view()

    def loss(rows):
        outputs = net.apply({"params": {**params, "rows": rows}}, view)
        return jax.nn.logsumexp(outputs["text_logits"], axis=-1).sum()

    np.testing.assert_array_equal(jax.grad(loss)(params["rows"]), 0.0)


def test_outputs_depend_on_the_whole_own_document_only():
    view = make_view()
    segment = np.asarray(view.segment[0])
    assert set(segment) >= {0, 1, 2, 3}, "the row must have three documents and PAD slots"
    direction = jax.random.normal(jax.random.key(5), (tiny.VOCAB + tiny.CODEC.channels,))

    @jax.jit
    def reach(slot):
        def output(content):
            embeds, latents = content
            out = jit_model()(view.replace(embeds=embeds, latents=latents))
            outputs = jnp.concatenate([out["text_logits"], out["image"]], -1)[0, slot]
            return outputs @ direction

        embeds, latents = jax.grad(output)((view.embeds, view.latents))
        return jnp.abs(embeds[0]).sum(-1) + jnp.abs(latents[0]).sum(-1)

    first, last = np.flatnonzero(segment == 2)[[0, -1]]
    for slot in (first, (first + last) // 2, last):
        felt = np.asarray(reach(int(slot)))
        # Attention is bidirectional within a document. Other packed documents and PAD must have
        # no influence at all.
        assert np.all(felt[segment == 2] > 0)
        np.testing.assert_array_equal(felt[segment != 2], 0)


def test_packed_documents_have_the_outputs_of_single_documents():
    view = make_view()
    together = jit_model()(view)
    segment = np.asarray(view.segment[0])
    for number in range(1, segment.max() + 1):
        at = np.flatnonzero(segment == number)

        def alone(x, at=at):
            left = jnp.zeros_like(x).at[:, : len(at)].set(x[:, at])
            return left

        apart = jit_model()(jax.tree.map(alone, view))
        for name in together:
            np.testing.assert_allclose(
                apart[name][0, : len(at)], together[name][0, at], atol=1e-5, rtol=1e-5
            )


def test_rows_do_not_depend_on_other_rows_or_padding_rows():
    view = make_view(2)
    both = jit_model()(view)
    padded = jit_model()(jax.tree.map(lambda x: x.at[1].set(jnp.zeros_like(x[1])), view))
    for name in both:
        np.testing.assert_allclose(padded[name][0], both[name][0], atol=1e-6)


@pytest.mark.parametrize("field", ["embeds", "latents"])
def test_each_kind_of_slot_reads_its_own_content(field):
    """Check that image slots ignore token embeddings, and text slots ignore latents."""
    view = make_view()
    out = jit_model()(view)
    foreign = view.modality == (2 if field == "embeds" else 1)
    changed = jnp.where(foreign[..., None], 99.0, getattr(view, field))
    again = jit_model()(view.replace(**{field: changed}))
    np.testing.assert_array_equal(again["image"], out["image"])


def test_outputs_depend_on_time_and_position():
    view = make_view()
    out = jit_model()(view)["image"]
    for changed in (
        view.replace(time=1 - view.time),
        *(view.replace(position=view.position.at[0, 3, axis].add(1)) for axis in range(3)),
    ):
        assert jnp.abs(jit_model()(changed)["image"] - out).max() > 1e-4


@pytest.mark.parametrize(
    "changes", [{"scan_unroll": 2}, {"remat": "dots"}, {"remat": "full"}], ids=str
)
def test_unrolling_and_recomputing_change_nothing(changes):
    view = make_view()
    loss, gradients = compute_loss_and_gradients(tiny.network(), view)
    other_loss, other_gradients = compute_loss_and_gradients(tiny.network(**changes), view)
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    tiny.assert_trees_close(other_gradients, gradients, atol=1e-6, rtol=1e-4)


def test_remat_changes_the_compiled_program():
    """Check that remat changes the program, so that the test above compares two programs."""
    view = make_view()

    def products(net):
        def loss(params):
            return sum(jnp.sum(x) for x in net.apply({"params": params}, view).values())

        return str(jax.make_jaxpr(jax.grad(loss))(tiny.parameters(tiny.network()))).count(
            "dot_general"
        )

    none, dots, full = (products(tiny.network(remat=name)) for name in ("none", "dots", "full"))
    assert none < dots < full


def test_embedding_table_has_the_parameters_and_the_vocabulary_size():
    net = tiny.network()
    params = tiny.parameters(net)
    table = net.apply({"params": params}, method="embedding_table")
    np.testing.assert_array_equal(table.embedding, params["rows"])
    assert table.embedding.shape == (tiny.VOCAB, tiny.EMBED)
    assert table.mask_embedding.shape == (tiny.EMBED,)
