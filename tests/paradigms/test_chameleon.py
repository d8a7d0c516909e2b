"""Tests of `chameleon` and `dalle`: autoregressive text and image codes."""

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from configs import common
from oneflow_jax.canvas import AttentionPattern, Modality
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.codecs.autoencoder.codec import VQCodec
from oneflow_jax.data import prompt, toy
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.document import Image, Text
from oneflow_jax.errors import UserError
from oneflow_jax.flows import losses, tasks
from oneflow_jax.generation.generator import Generator
from oneflow_jax.paradigms import base
from oneflow_jax.paradigms.chameleon import Chameleon
from oneflow_jax.samplers import ar_guidance, ar_images, ode, token_sampling
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.training import loop, train_state
from tests import runs, tiny
from tests.codecs.autoencoder import small_models
from tests.paradigms.oracle import SEED, TABLE, row_keys

NUM_CODES = 11  # Codebook size of small_models.VQ.
LENGTH = 48


@functools.cache
def layout(images_last=False):
    lay = tiny.make_layout(LENGTH, 0)
    return dataclasses.replace(
        lay,
        vocab=dataclasses.replace(lay.vocab, code_count=NUM_CODES),
        codec=VQCodec(small_models.random_autoencoder(small_models.VQ), pixels=4),
        has_markers=True,
        images_last=images_last,
    )


def paradigm():
    ids = layout().vocab
    return Chameleon(
        token_space=token_sampling.TokenSpace(
            tiny.VOCAB, (ids.text.start, ids.text.stop), vocabs.IMAGE, vocabs.END, (2, 2)
        ),
        code_id_range=(ids.codes.start, ids.codes.stop),
        task_mixture=tasks.ALL_TARGETS,
        weights=(("text", 1.0), ("image", 1.0), ("z_loss", 1e-5)),
    )


@pytest.fixture(scope="module")
def data():
    rows = [
        row for row in map(layout().row, toy.Toy(documents=30)) if len(row["modality"]) <= LENGTH
    ]
    return jax.tree.map(jnp.asarray, layout().canvas(rows[:8]))


def corrupt_rows(canvas):
    u = jnp.zeros(canvas.ids.shape)
    corrupt = jax.vmap(lambda k, u, row: paradigm().corrupt(k, u, row, TABLE))
    return corrupt(row_keys(SEED, canvas.ids.shape[0]), u, canvas)


def test_image_codes_are_in_the_vocabulary(data):
    codes = layout().vocab.codes
    image = np.asarray(data.is_image)
    ids = np.asarray(data.ids)
    assert ((ids[image] >= codes.start) & (ids[image] < codes.stop)).all()
    assert (ids[~image] < codes.start).all()
    document = toy.Toy(documents=30)[0]
    canvas = layout().canvas([layout().row(document)])
    (read,) = layout().decode(canvas)
    autoencoder = small_models.random_autoencoder(small_models.VQ)
    for decoded, picture in zip(read.images(), document.images(), strict=True):
        expected = autoencoder.decode_codes(autoencoder.encode_codes(picture[None]))[0]
        np.testing.assert_array_equal(decoded, expected)


def test_dalle_has_images_last():
    document = next(item for item in toy.Toy(documents=30) if len(item.images()) > 1)
    row = layout(images_last=True).row(document)
    words = np.flatnonzero((row["modality"] == Modality.TEXT) & (row["ids"] >= vocabs.UNKNOWN))
    pictures = np.flatnonzero(row["modality"] == Modality.IMAGE)
    assert words.max() < pictures.min()
    assert row["ids"][-1] == vocabs.END
    (read,) = layout(images_last=True).decode(layout(images_last=True).canvas([row]))
    assert [type(part) for part in read.parts] == [Text] + [Image] * len(document.images())
    assert read.text().split() == document.text().split()


def test_every_token_is_a_target_once_and_input_is_clean(data):
    view, targets = corrupt_rows(data)
    text, image = np.asarray(targets.text_scored), np.asarray(targets.image_scored)
    assert not (text & image).any()
    assert image.sum() == np.asarray(data.is_image).sum()
    assert text.sum() == np.asarray(data.is_text).sum() - len(text)
    for row, slot in zip(*np.nonzero(text | image), strict=True):
        assert targets.ids[row, slot] == data.ids[row, slot + 1]
    exists = np.asarray(data.modality) != Modality.PAD
    np.testing.assert_array_equal(view.embeds[exists], TABLE.embedding[data.ids][exists])
    assert (np.asarray(view.modality)[exists] == Modality.TEXT).all()
    counts = jax.vmap(paradigm().counts)(data)
    assert float(counts["text"].sum()) == text.sum()
    assert float(counts["image"].sum()) == image.sum()


def test_oracle_has_no_loss(data):
    flow = paradigm()
    _, targets = corrupt_rows(data)
    outputs = {"token_logits": 1e4 * jax.nn.one_hot(targets.ids, tiny.VOCAB)}
    losses = jax.vmap(flow.loss)(outputs, targets)
    assert {term for term, _ in flow.weights} == set(losses)
    for term in ("text", "image"):
        np.testing.assert_allclose(losses[term].total, 0.0, atol=1e-6)
    assert flow.attention_pattern is AttentionPattern.CAUSAL


def test_z_loss_is_the_squared_logarithm_of_the_sum():
    logits = jnp.log(jnp.array([[1.0, 3.0], [2.0, 5.0], [9.0, 9.0]]))
    term = losses.z_loss(logits, jnp.array([True, True, False]))
    np.testing.assert_allclose(term.total, np.log(4) ** 2 + np.log(7) ** 2, rtol=1e-6)
    assert term.count == 2


class ConstantModel:
    """A network with constant outputs."""

    def __init__(self, logits):
        self.logits = jnp.asarray(logits)

    def decode(self, view, cache):
        shape = (*view.modality.shape, self.logits.shape[0])
        return {"token_logits": jnp.broadcast_to(self.logits, shape)}, cache


@dataclasses.dataclass
class CounterCache:
    """A cache that only has a length."""

    length: jax.Array

    def advance(self, num_slots):
        return CounterCache(self.length + num_slots)

    def first_rows(self, batch_size):
        return CounterCache(self.length[:batch_size])


jax.tree_util.register_dataclass(CounterCache, data_fields=["length"], meta_fields=[])


def test_codes_are_sampled_from_the_network_distribution():
    """Check that only codes are sampled, at the right frequencies, and that given images stay."""
    rows, patches, codes = 3000, 2, (5, 8)
    shares = np.array([0.5, 0.3, 0.2])
    logits = np.full(10, 4.0)  # Text tokens have much larger logits.
    logits[5:8] = np.log(shares)
    source = ar_images.ImageContent(jnp.full((rows, patches), 9), jnp.zeros((rows, patches, 1)))
    is_given = jnp.arange(rows) < 10
    view = jax.tree.map(lambda x: jnp.repeat(x[:1, :patches], rows, axis=0), tiny_view())
    draw = ar_images.TokenImageSampler(
        10, codes, token_sampling.TokenSampling(), ar_guidance.ARGuidance(1.0, vocabs.IMAGE)
    )
    sampled = draw(
        ConstantModel(logits),
        base.EmbeddingTable(
            embedding=jnp.zeros((10, tiny.EMBED)), mask_embedding=jnp.zeros(tiny.EMBED)
        ),
        jax.random.split(jax.random.key(0), rows),
        ar_images.ImageContext(
            view=view,
            prompt_image=source,
            is_given=is_given,
            logits=jnp.broadcast_to(jnp.asarray(logits), (rows, 10)),
            cache=CounterCache(jnp.full(rows, 3)),
        ),
    )
    ids = np.asarray(sampled.image.ids)
    np.testing.assert_array_equal(ids[:10], 9)
    pairs = collections.Counter(map(tuple, ids[10:].tolist()))
    assert set(pairs) <= {(a, b) for a in range(*codes) for b in range(*codes)}
    num_sampled = rows - 10
    for (a, b), count in pairs.items():
        p = shares[a - 5] * shares[b - 5]
        assert abs(count - num_sampled * p) < 4 * np.sqrt(num_sampled * p * (1 - p))
    np.testing.assert_array_equal(sampled.cache.length, 3)  # The caller advances the cache.


def tiny_view():
    return tiny.noisy_canvas(tiny.training_rows(tiny.captions(1)))


@pytest.fixture(scope="module", params=["chameleon", "dalle"])
def system(request, tmp_path_factory):
    """Return a system trained for two steps on toy data with a small VQModel."""
    folder = epath.Path(tmp_path_factory.mktemp(request.param))
    diffusers_weights.save(
        folder / "vq", small_models.VQ, small_models.random_params(small_models.VQ)
    )
    config = runs.make_config().copy_and_resolve_references().unlock()
    config.codec = common.vq_codec(str(folder / "vq"), pixels=4)
    config.data.dir = str(folder / "data")
    config.data.sequence_length = LENGTH
    config.steps = 2
    common.set_paradigm(config, request.param)
    built = runs.prepare_system(folder / "run", config.lock())
    loop.run(built, folder / "run")
    return built


def test_chameleon_trains_and_generates_text_and_images(system):
    generator = Generator(system, train_state.init_sharded(system).params)
    given_image = np.full((4, 4, 3), 200, np.uint8)
    prompts = ["a picture of red: <image>", "<text> <image>", [given_image, "<document>"]]
    documents = [prompt.parse(pieces, 4) for pieces in prompts]
    plan = SamplingPlan(ode.make_schedule("euler", 2))
    (batch,) = generator(documents, plan, seed=0, batch=8, record=True)
    first, second, _ = batch.documents
    assert first.text() == "a picture of red:"
    assert len(first.images()) == len(second.images()) == 1
    codes = system.layout.vocab.codes
    ids, image = np.asarray(batch.canvas.ids), np.asarray(batch.canvas.is_image)
    assert ((ids[image] >= codes.start) & (ids[image] < codes.stop)).all()
    # Sampling takes at least the prefill and one pass for each of the 4 codes of an image.
    assert batch.nfe > 1 + 4
    assert batch.trajectory.run_times[-1] > 4


def test_incompatible_codecs_and_paradigms_are_reported(system, tmp_path):
    config = system.config.copy_and_resolve_references().unlock()
    config.paradigm.name = "transfusion"
    with pytest.raises(UserError, match=r"codec.name='vq': it does not fit .*'transfusion'"):
        runs.prepare_system(tmp_path / "other", config.lock())
    plain = runs.make_config(paradigm__name="chameleon", data__text_slot_multiple=0)
    with pytest.raises(UserError, match=r"codec.name='patches': it does not fit .*'chameleon'"):
        runs.prepare_system(tmp_path / "plain", plain)
    with pytest.raises(UserError, match=r"codec.name='vq' needs a VQModel"):
        VQCodec(small_models.random_autoencoder(small_models.KL), pixels=4)
