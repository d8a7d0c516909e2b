"""`chameleon` and `dalle`: words and codes, one after another."""

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from configs import common
from oneflow_jax import generate
from oneflow_jax.canvas import AttentionPattern, Modality
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.codecs.autoencoder.codec import VQCodec
from oneflow_jax.data import prompt, toy
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.document import Image, Text
from oneflow_jax.errors import UserError
from oneflow_jax.flows import losses, tasks
from oneflow_jax.paradigms import base
from oneflow_jax.paradigms.chameleon import Chameleon
from oneflow_jax.samplers import ar_guidance, ar_images, ar_state, ode, token_sampling
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.training import loop, train_state
from tests import runs, tiny
from tests.codecs.autoencoder import small_models
from tests.paradigms.oracle import SEED, TABLE, row_keys

NUM_CODES = 11  # of small.VQ
LENGTH = 48


@functools.cache
def layout(text_first=False):
    lay = tiny.make_layout(LENGTH, 0)
    return dataclasses.replace(
        lay,
        vocab=dataclasses.replace(lay.vocab, code_count=NUM_CODES),
        codec=VQCodec(small_models.random_autoencoder(small_models.VQ), pixels=4),
        markers=True,
        text_first=text_first,
    )


def paradigm():
    ids = layout().vocab
    return Chameleon(
        alphabet=ar_state.TokenSpace(
            tiny.VOCAB, (ids.text.start, ids.text.stop), vocabs.IMAGE, vocabs.END, (2, 2)
        ),
        codes=(ids.codes.start, ids.codes.stop),
        mix=tasks.ALL_TARGETS,
        weights=(("text", 1.0), ("image", 1.0), ("z", 1e-5)),
    )


@pytest.fixture(scope="module")
def data():
    rows = [row for row in map(layout().row, toy.Toy(documents=30)) if len(row["kind"]) <= LENGTH]
    return jax.tree.map(jnp.asarray, layout().canvas(rows[:8]))


def corrupt_rows(canvas):
    u = jnp.zeros(canvas.ids.shape)
    corrupt = jax.vmap(lambda k, u, row: paradigm().corrupt(k, u, row, TABLE))
    return corrupt(row_keys(SEED, canvas.ids.shape[0]), u, canvas)


def test_pictures_are_codes_in_the_one_vocabulary(data):
    codes = layout().vocab.codes
    image = np.asarray(data.is_image)
    ids = np.asarray(data.ids)
    assert ((ids[image] >= codes.start) & (ids[image] < codes.stop)).all()
    assert (ids[~image] < codes.start).all()
    document = toy.Toy(documents=30)[0]
    canvas = layout().canvas([layout().row(document)])
    (read,) = layout().read(canvas)
    autoencoder = small_models.random_autoencoder(small_models.VQ)
    for made, picture in zip(read.pictures(), document.pictures(), strict=True):
        wanted = autoencoder.decode_codes(autoencoder.codes(picture[None]))[0]
        np.testing.assert_array_equal(made, wanted)


def test_dalle_has_all_words_first():
    document = next(item for item in toy.Toy(documents=30) if len(item.pictures()) > 1)
    row = layout(text_first=True).row(document)
    words = np.flatnonzero((row["kind"] == Modality.TEXT) & (row["ids"] >= vocabs.UNKNOWN))
    pictures = np.flatnonzero(row["kind"] == Modality.IMAGE)
    assert words.max() < pictures.min()
    assert row["ids"][-1] == vocabs.END
    (read,) = layout(text_first=True).read(layout(text_first=True).canvas([row]))
    assert [type(part) for part in read.parts] == [Text] + [Image] * len(document.pictures())
    assert read.words().split() == document.words().split()


def test_every_token_is_asked_for_once_and_seen_as_it_is(data):
    view, targets = corrupt_rows(data)
    text, image = np.asarray(targets.text), np.asarray(targets.image)
    assert not (text & image).any()
    assert image.sum() == np.asarray(data.is_image).sum()
    assert text.sum() == np.asarray(data.is_text).sum() - len(text)
    for row, slot in zip(*np.nonzero(text | image), strict=True):
        assert targets.ids[row, slot] == data.ids[row, slot + 1]
    exists = np.asarray(data.kind) != Modality.PAD
    np.testing.assert_array_equal(view.embeds[exists], TABLE.rows[data.ids][exists])
    assert (np.asarray(view.kind)[exists] == Modality.TEXT).all()
    counts = jax.vmap(paradigm().counts)(data)
    assert float(counts["text"].sum()) == text.sum()
    assert float(counts["image"].sum()) == image.sum()


def test_oracle_has_no_loss(data):
    flow = paradigm()
    _, targets = corrupt_rows(data)
    outputs = {"token_logits": 1e4 * jax.nn.one_hot(targets.ids, tiny.VOCAB)}
    found = jax.vmap(flow.loss)(outputs, targets)
    assert {term for term, _ in flow.weights} == set(found)
    for term in ("text", "image"):
        np.testing.assert_allclose(found[term].total, 0.0, atol=1e-6)
    assert flow.attend is AttentionPattern.CAUSAL


def test_z_loss_is_the_squared_logarithm_of_the_sum():
    logits = jnp.log(jnp.array([[1.0, 3.0], [2.0, 5.0], [9.0, 9.0]]))
    term = losses.z_loss(logits, jnp.array([True, True, False]))
    np.testing.assert_allclose(term.total, np.log(4) ** 2 + np.log(7) ** 2, rtol=1e-6)
    assert term.count == 2


class ConstantModel:
    """A network that always says the same, and remembers how many slots it has."""

    def __init__(self, logits):
        self.logits = jnp.asarray(logits)

    def after(self, view, cache):
        shape = (*view.kind.shape, self.logits.shape[0])
        return {"token_logits": jnp.broadcast_to(self.logits, shape)}, cache


@dataclasses.dataclass
class CounterCache:
    """A cache without content."""

    length: jax.Array

    def advanced(self, by):
        return CounterCache(self.length + by)

    def top(self, rows):
        return CounterCache(self.length[:rows])


jax.tree_util.register_dataclass(CounterCache, data_fields=["length"], meta_fields=[])


def test_codes_are_drawn_as_the_network_says():
    """Only codes, with their frequencies; given pictures stay."""
    rows, patches, codes = 3000, 2, (5, 8)
    shares = np.array([0.5, 0.3, 0.2])
    logits = np.full(10, 4.0)  # Words would be likelier by far.
    logits[5:8] = np.log(shares)
    source = ar_images.ImageContent(jnp.full((rows, patches), 9), jnp.zeros((rows, patches, 1)))
    given = jnp.arange(rows) < 10
    view = jax.tree.map(lambda x: jnp.repeat(x[:1, :patches], rows, axis=0), tiny_view())
    draw = ar_images.TokenImageSampler(
        10, codes, token_sampling.TokenSampling(), ar_guidance.ARGuidance(1.0, vocabs.IMAGE)
    )
    drawn = draw(
        ConstantModel(logits),
        base.EmbeddingTable(rows=jnp.zeros((10, tiny.EMBED)), mask=jnp.zeros(tiny.EMBED)),
        jax.random.split(jax.random.key(0), rows),
        ar_images.ImageContext(
            view=view,
            source=source,
            given=given,
            logits=jnp.broadcast_to(jnp.asarray(logits), (rows, 10)),
            cache=CounterCache(jnp.full(rows, 3)),
        ),
    )
    ids = np.asarray(drawn.picture.ids)
    np.testing.assert_array_equal(ids[:10], 9)
    pairs = collections.Counter(map(tuple, ids[10:].tolist()))
    assert set(pairs) <= {(a, b) for a in range(*codes) for b in range(*codes)}
    made = rows - 10
    for (a, b), count in pairs.items():
        p = shares[a - 5] * shares[b - 5]
        assert abs(count - made * p) < 4 * np.sqrt(made * p * (1 - p))
    np.testing.assert_array_equal(drawn.cache.length, 3)  # Whoever called advances it.


def tiny_view():
    return tiny.noisy_canvas(tiny.training_rows(tiny.captions(1)))


@pytest.fixture(scope="module", params=["chameleon", "dalle"])
def system(request, tmp_path_factory):
    """A run on toy data and a small VQModel, trained for two steps."""
    folder = epath.Path(tmp_path_factory.mktemp(request.param))
    diffusers_weights.save(
        folder / "vq", small_models.VQ, small_models.random_params(small_models.VQ)
    )
    config = runs.make_config().copy_and_resolve_references().unlock()
    config.codec = common.vq_codec(str(folder / "vq"), pixels=4)
    config.data.dir = str(folder / "data")
    config.data.length = LENGTH
    config.steps = 2
    common.set_paradigm(config, request.param)
    built = runs.prepare_system(folder / "run", config.lock())
    loop.run(built, folder / "run")
    return built


def test_it_trains_and_writes_words_and_pictures(system):
    generator = generate.Generator(system, train_state.init_sharded(system).params)
    given = np.full((4, 4, 3), 200, np.uint8)
    asked = [["a picture of red:", "<image>"], ["<text> <image>"], [given, "<document>"]]
    documents = [prompt.parse(pieces, 4) for pieces in asked]
    plan = SamplingPlan(ode.make_schedule("euler", 2), record=True)
    (batch,) = generator(documents, plan, seed=0, batch=8)
    first, second, _ = batch.documents
    assert first.words() == "a picture of red:"
    assert len(first.pictures()) == len(second.pictures()) == 1
    codes = system.layout.vocab.codes
    ids, image = np.asarray(batch.canvas.ids), np.asarray(batch.canvas.is_image)
    assert ((ids[image] >= codes.start) & (ids[image] < codes.stop)).all()
    # The beginning; then for the longest row each token, and each code of the pictures beside it.
    assert batch.passes > 1 + 4
    assert batch.moments.times[-1] == 1.0


def test_codecs_and_paradigms_that_do_not_go_together_are_told(system, tmp_path):
    config = system.config.copy_and_resolve_references().unlock()
    config.paradigm.name = "transfusion"
    with pytest.raises(UserError, match=r"codec.name='codes' does not go with .*'transfusion'"):
        runs.prepare_system(tmp_path / "other", config.lock())
    plain = runs.make_config(paradigm__name="chameleon", data__text_slots=0)
    with pytest.raises(UserError, match=r"codec.name='patches' does not go with .*'chameleon'"):
        runs.prepare_system(tmp_path / "plain", plain)
    with pytest.raises(UserError, match=r"codec.name='codes' wants a VQModel"):
        VQCodec(small_models.random_autoencoder(small_models.KL), pixels=4)
