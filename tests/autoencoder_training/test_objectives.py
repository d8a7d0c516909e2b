import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.autoencoder_training import codebook, loss_terms, objectives
from oneflow_jax.codecs.autoencoder import kl
from oneflow_jax.training import update
from tests.autoencoder_training import examples

IMAGES = jax.random.uniform(jax.random.key(9), (3, 4, 4, 3), minval=-1.0)


def row_keys():
    return update.per_row_keys(jax.random.key(0), 3)


@dataclasses.dataclass(frozen=True)
class PixelLatentModel:
    """A stub of a VAE: the latents have the mean `scale` * pixels; decoding is the identity."""

    log_variance: float

    def apply(self, variables, x, method):
        if method == "decode":
            return x
        scale = variables["params"]["scale"]
        return kl.DiagonalGaussian(scale * x, jnp.full(x.shape, self.log_variance))


@dataclasses.dataclass(frozen=True)
class FirstPixelError:
    """A stub of a loss term: the signed error of the first value of each image."""

    name: str = "pixels"
    weight: float = 1.0

    def __call__(self, x_hat, x):
        return (x_hat - x)[:, 0, 0, 0]


def test_squared_error_is_a_mean_over_the_image():
    prediction = IMAGES.at[1].add(0.5)
    np.testing.assert_allclose(examples.SQUARES(prediction, IMAGES), [0, 0.25, 0], atol=1e-6)


def kl_loss_sums(log_variance, pixels=IMAGES, rows=slice(None), term=examples.SQUARES, scale=1.0):
    objective = objectives.KL(PixelLatentModel(log_variance), (term,), 0.5)
    sums, stats = objective.loss_sums({"scale": jnp.float32(scale)}, row_keys()[rows], pixels[rows])
    assert stats == ()
    return sums


def test_exact_reconstruction_has_zero_loss():
    sums = kl_loss_sums(-30.0)
    assert sums["pixels"].total < 1e-10
    assert sums["pixels"].count == 3


def test_standard_normal_latents_have_zero_kl():
    assert kl_loss_sums(0.0, scale=0.0)["kl"].total == 0


def test_kl_is_summed_over_the_latents_of_an_image():
    sums = kl_loss_sums(0.0, scale=2.0)
    np.testing.assert_allclose(sums["kl"].total, 2 * np.sum(IMAGES**2), rtol=1e-5)
    assert dict(objectives.KL(PixelLatentModel(0.0), (), 0.5).weights) == {"kl": 0.5}


def test_each_row_samples_with_its_own_key():
    same = jnp.broadcast_to(IMAGES[:1], IMAGES.shape)
    term = FirstPixelError()
    alone = [
        float(kl_loss_sums(0.0, same, slice(n, n + 1), term)["pixels"].total) for n in range(3)
    ]
    assert len(set(alone)) == 3
    np.testing.assert_allclose(
        kl_loss_sums(0.0, same, term=term)["pixels"].total, sum(alone), rtol=1e-5
    )
    noise = jax.random.normal(row_keys()[1], same[0].shape)
    np.testing.assert_allclose(alone[1], noise[0, 0, 0], rtol=1e-5)


def test_kl_post_update_changes_nothing():
    objective, params = objectives.KL(PixelLatentModel(0.0), (), 0.5), {"scale": 1.0}
    assert objective.post_update(params, jax.random.key(0), (), 0.5) is params


class TableModel:
    """A codebook model: the encoder output is a parameter, the decoder is sin(linear map)."""

    def apply(self, variables, x, method):
        params = variables["params"]
        table = params["quantize"]["embedding"]["embedding"]
        if method == "encode_continuous":
            return params["encoder"]
        if method == "nearest_codes":
            squares = jnp.sum((x[..., None, :] - table[None, None, None]) ** 2, axis=-1)
            return jnp.argmin(squares, axis=-1)
        if method == "lookup":
            return table[x]
        return jnp.sin(x @ params["decoder"])


def table_params(num_codes=6):
    rng = jax.random.split(jax.random.key(4), 3)
    table = jax.random.normal(rng[1], (num_codes, 2))
    return {
        "encoder": jax.random.normal(rng[0], (3, 4, 4, 2)),
        "quantize": {"embedding": {"embedding": table}},
        "decoder": jax.random.normal(rng[2], (2, 3)),
    }


def vq_objective(**changes):
    given = {
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "entropy_weight": 0.1,
        "dead_code_restart_prob": 1.0,
    } | changes
    return objectives.VQ(TableModel(), (examples.SQUARES,), **given)


def term_gradients(term):
    """Return one term's gradients with respect to the encoder's vectors and to the table."""

    def total(params):
        return vq_objective().loss_sums(params, row_keys(), IMAGES)[0][term].total

    gradients = jax.grad(total)(table_params())
    return gradients["encoder"], gradients["quantize"]["embedding"]["embedding"]


def quantize():
    """Return the encoder's vectors, the nearest codes, and the table's entries of these codes."""
    params, model = table_params(), TableModel()
    vectors = params["encoder"]
    codes = model.apply({"params": params}, vectors, "nearest_codes")
    return vectors, codes, model.apply({"params": params}, codes, "lookup")


def test_gradients_go_straight_through_the_codes():
    params = table_params()
    _, _, chosen = quantize()

    def loss_of_chosen(q):
        decoded = TableModel().apply({"params": params}, q, "decode")
        return jnp.sum(examples.SQUARES(decoded, IMAGES))

    encoder, table = term_gradients("pixels")
    np.testing.assert_allclose(encoder, jax.grad(loss_of_chosen)(chosen), rtol=1e-4, atol=1e-7)
    assert np.abs(encoder).max() > 1e-4
    assert not table.any()
    sums, _ = vq_objective().loss_sums(params, row_keys(), IMAGES)
    np.testing.assert_allclose(sums["pixels"].total, loss_of_chosen(chosen), rtol=1e-5)


def test_codebook_loss_moves_only_codes():
    encoder, table = term_gradients("codebook")
    assert not encoder.any()
    vectors, codes, chosen = quantize()
    expected = np.zeros(table.shape)
    np.add.at(expected, np.asarray(codes), np.asarray(2 * (chosen - vectors)) / 32)
    np.testing.assert_allclose(table, expected, rtol=1e-4, atol=1e-6)


def test_commitment_loss_moves_only_vectors():
    encoder, table = term_gradients("commitment")
    vectors, _, chosen = quantize()
    assert not table.any()
    np.testing.assert_allclose(encoder, 2 * (vectors - chosen) / 32, rtol=1e-4, atol=1e-6)


def test_entropy_loss_moves_only_codes():
    encoder, table = term_gradients("entropy")
    assert not encoder.any()
    assert np.abs(table).max() > 1e-4
    params = table_params()
    sums, _ = vq_objective().loss_sums(params, row_keys(), IMAGES)
    vectors = params["encoder"].reshape(-1, 2)
    scarce = codebook.codebook_entropy_loss(vectors, params["quantize"]["embedding"]["embedding"])
    # The loss of the batch is assigned to every image, so the mean over images equals it.
    np.testing.assert_allclose(sums["entropy"].compute(), scarce, rtol=1e-5)


def test_weights_of_codebook_terms():
    weights = {"pixels": 1.0, "codebook": 1.0, "commitment": 0.25, "entropy": 0.1}
    assert dict(vq_objective().weights) == weights
    sums, _ = vq_objective().loss_sums(table_params(), row_keys(), IMAGES)
    assert set(sums) == set(weights)


def test_statistics_count_codes_and_sample_vectors():
    _, stats = vq_objective().loss_sums(table_params(), row_keys(), IMAGES)
    vectors, codes, _ = quantize()
    np.testing.assert_array_equal(stats.counts, np.bincount(codes.reshape(-1), minlength=6))
    rows = {tuple(v) for v in np.asarray(vectors).reshape(-1, 2).tolist()}
    assert {tuple(v) for v in np.asarray(stats.vectors).tolist()} <= rows


@pytest.mark.parametrize(
    ("revival", "left", "moved"), [(1.0, 1.0, [2]), (0.0, 1.0, []), (1.0, 0.0, [])]
)
def test_code_used_in_any_microbatch_is_not_restarted(revival, left, moved):
    params = table_params(3)
    counts = jnp.asarray([[1.0, 0, 0], [0, 2, 0]])
    vectors = jnp.arange(12.0).reshape(2, 3, 2)
    stats = objectives.CodebookStats(counts, vectors)
    updated = vq_objective(dead_code_restart_prob=revival).post_update(
        params, jax.random.key(0), stats, left
    )
    before, after = (p["quantize"]["embedding"]["embedding"] for p in (params, updated))
    np.testing.assert_array_equal(np.flatnonzero(np.any(before != after, axis=1)), moved)
    if moved:
        np.testing.assert_array_equal(after[2], vectors[0, 2])
    assert updated["encoder"] is params["encoder"]


def test_the_perceptual_term_is_lpips():
    term = loss_terms.Perceptual(0.5, params="given")
    assert (term.name, term.weight) == ("perceptual", 0.5)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_terms.lpips, "distance", lambda *args: calls.append(args))
        term("made", "real")
    assert calls == [("given", "made", "real")]
