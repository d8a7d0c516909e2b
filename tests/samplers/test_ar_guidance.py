"""Tests of the unconditional branch: conditioning dropout, and guidance in sampling."""

import collections
import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern, EmbeddingTable, Modality
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.errors import UserError
from oneflow_jax.flows import predictions, tasks
from oneflow_jax.nn import attention_mask
from oneflow_jax.paradigms.chameleon import Chameleon
from oneflow_jax.samplers import (
    ar_guidance,
    ar_images,
    autoregressive,
    ode,
    steps,
    token_sampling,
)
from oneflow_jax.samplers.base import SamplingPlan
from tests import tiny
from tests.paradigms import test_chameleon, test_transfusion
from tests.paradigms.oracle import SEED, TABLE, row_keys

PATCHES = 4
LENGTH = test_chameleon.LENGTH
TOY_IMAGE = Image(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
make_guidance = functools.partial(ar_guidance.ARGuidance, image_token_id=vocabs.IMAGE)


def pack_documents(*documents, layout=None):
    """Return one row of several packed documents."""
    layout = layout or dataclasses.replace(tiny.make_layout(LENGTH, 0), has_markers=True)
    rows = [layout.row(Document(parts)) for parts in documents]
    spans = np.cumsum([0] + [row["span"].max() for row in rows])
    joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    shifts = [np.full(len(row["modality"]), by) for row, by in zip(rows, spans, strict=False)]
    joined["span"] += np.concatenate(shifts)
    canvas = jax.tree.map(lambda x: jnp.asarray(x[0]), layout.canvas([joined]))
    numbers = np.concatenate([np.full(len(row["modality"]), n + 1) for n, row in enumerate(rows)])
    return canvas.replace(segment=jnp.zeros(LENGTH, int).at[: len(numbers)].set(numbers))


def packed_row():
    """Return a row of four documents: text and image; images and texts in turn; text; text."""
    return pack_documents(
        (Text("red"), TOY_IMAGE),
        (TOY_IMAGE, Text("blue"), TOY_IMAGE, Text("green")),
        (Text("red"),),
        (Text("red"),),
    )


def clean_view(canvas, modality=None):
    kind = (
        canvas.modality
        if modality is None
        else jnp.where(canvas.is_image, int(modality), canvas.modality)
    )
    embeds = TABLE.embedding[canvas.ids]
    ones = jnp.ones(canvas.ids.shape)
    return canvases.noisy_canvas(canvas.replace(modality=kind), embeds, canvas.latents, ones)


@pytest.mark.parametrize("gone", [(1,), (1, 2), (2, 3, 4)])
@pytest.mark.parametrize(
    ("attend", "text_time"),
    [(AttentionPattern.MIXED, Modality.IMAGE), (AttentionPattern.CAUSAL, Modality.TEXT)],
)
def test_dropped_documents_keep_only_images_and_their_opening_tokens(attend, text_time, gone):
    canvas = packed_row()
    view = clean_view(canvas, text_time)
    segment, span = np.asarray(canvas.segment), np.asarray(canvas.span)
    image, is_kept = np.asarray(canvas.is_image), ~np.isin(segment, (0, *gone))
    # One segment number equals an image's span number, so the test fails if code confuses the two.
    assert span[image].min() == 4 == segment.max()
    dropped = canvas.is_text & canvas.to_generate & np.isin(segment, gone)
    image_only, is_unconditional = ar_guidance.image_only_view(view, canvas, dropped, vocabs.IMAGE)
    np.testing.assert_array_equal(is_unconditional, np.isin(segment, gone))
    firsts = [n for n in np.flatnonzero(image) if not image[n - 1]]
    assert len(firsts) == 3
    mask_after, mask_before = (
        np.asarray(
            attention_mask.from_canvas(jax.tree.map(lambda x: x[None], one), attend).materialize()
        )[0]
        for one in (image_only, view)
    )
    np.testing.assert_array_equal(mask_after[is_kept], mask_before[is_kept])
    left = is_kept.copy()
    for first in (first for first in firsts if segment[first] in gone):
        picture = np.arange(first, first + PATCHES)
        assert (span[picture] == span[first]).all()
        for slot in (first - 1, *picture):
            stop = slot if attend is AttentionPattern.CAUSAL or slot < first else picture[-1]
            np.testing.assert_array_equal(
                np.flatnonzero(mask_after[slot]), range(first - 1, stop + 1)
            )
        left[[first - 1, *picture]] = True
    np.testing.assert_array_equal(
        np.asarray(image_only.modality), np.where(left, view.modality, Modality.PAD)
    )
    assert not np.asarray(image_only.segment)[~left].any()
    for name in ("position", "embeds", "latents", "time"):
        np.testing.assert_array_equal(getattr(image_only, name), getattr(view, name))


def test_no_dropout_changes_nothing():
    canvas = packed_row()
    none = jnp.zeros(LENGTH, bool)
    image_only, is_unconditional = ar_guidance.image_only_view(
        clean_view(canvas), canvas, none, vocabs.IMAGE
    )
    tiny.assert_trees_close(image_only, clean_view(canvas), atol=0)
    assert not is_unconditional.any()


def make_paradigm(kind, task_mixture=tasks.ALL_TARGETS):
    """Return the paradigm and its layout."""
    if kind == "transfusion":
        lay = dataclasses.replace(tiny.make_layout(LENGTH, 0), has_markers=True)
        return dataclasses.replace(test_transfusion.paradigm(), task_mixture=task_mixture), lay
    lay = test_chameleon.layout()
    words, codes = ((ids.start, ids.stop) for ids in (lay.vocab.text, lay.vocab.codes))
    alphabet = token_sampling.TokenSpace(tiny.VOCAB, words, vocabs.IMAGE, vocabs.END, (2, 2))
    weights = (("text", 1.0), ("image", 1.0), ("z_loss", 1e-5))
    return Chameleon(alphabet, codes, task_mixture, weights), lay


@pytest.mark.parametrize("kind", ["transfusion", "chameleon"])
def test_conditioning_dropout_scores_only_images(kind):
    """Check that dropped captions are not scored, but their images and other documents are."""
    caption = (Text("red"), TOY_IMAGE)
    canvas = pack_documents(
        caption, caption, (TOY_IMAGE, Text("blue")), layout=make_paradigm(kind)[1]
    )

    def corrupt_rows(mix):
        paradigm, _ = make_paradigm(kind, mix)
        u = jnp.full(LENGTH, 0.3)
        return jax.jit(jax.vmap(lambda k: paradigm.corrupt(k, u, canvas, TABLE)))(
            row_keys(SEED, 40)
        )

    _, whole = corrupt_rows(tasks.ALL_TARGETS)
    view, targets = corrupt_rows(tasks.TaskMixture((0.0, 1.0, *(0.0,) * 5), 0.5))
    np.testing.assert_array_equal(targets.image_scored, whole.image_scored)
    assert np.asarray(targets.image_scored).any(1).all()
    words, dropped = np.asarray(canvas.is_text & (canvas.ids != vocabs.IMAGE)), []
    for number in (1, 2, 3):
        of = np.asarray(canvas.segment) == number
        dropped.append((np.asarray(view.modality)[:, of & words] == Modality.PAD).all(1))
        expected = np.asarray(whole.text_scored)[:, of] & ~dropped[-1][:, None]
        np.testing.assert_array_equal(np.asarray(targets.text_scored)[:, of], expected)
    assert 40 < np.sum(dropped) < 80
    # Dropout is independent for each document.
    assert len(set(zip(*np.array(dropped).tolist(), strict=True))) == 8


@flax.struct.dataclass
class LengthCache:
    """A cache that only has a length."""

    length: jax.Array

    def advance(self, num_slots):
        return LengthCache(self.length + num_slots)

    def concat_rows(self, second):
        return LengthCache(jnp.concatenate([self.length, second.length]))

    def first_rows(self, batch_size):
        return LengthCache(self.length[:batch_size])


@dataclasses.dataclass(frozen=True, eq=False)
class StubModel:
    """A stub with constant logits, which differ between rows longer than an image and other rows.

    `batch_sizes` records the number of rows of each call.
    """

    conditional_logits: np.ndarray
    unconditional_logits: np.ndarray
    batch_sizes: list = dataclasses.field(default_factory=list)

    def init_cache(self, batch_size, num_slots):
        del num_slots
        return LengthCache(jnp.zeros(batch_size, int))

    def prefill(self, view, cache):
        return self.decode(view, cache)

    def decode(self, view, cache):
        rows = view.modality.shape[0]
        jax.debug.callback(lambda: self.batch_sizes.append(rows))
        alone_ = (cache.length <= PATCHES)[:, None, None]
        logits = jnp.where(
            alone_,
            jnp.asarray(self.unconditional_logits)[None, None],
            jnp.asarray(self.conditional_logits)[None, None],
        )
        shape = (*view.modality.shape, logits.shape[-1])
        outputs = {"token_logits": jnp.broadcast_to(logits, shape), "image": 0.5 * view.latents}
        return outputs, cache


CODE_ID_RANGE = (10, 13)


def make_stub():
    """Return a stub for three codes, in which text tokens have larger logits than codes."""
    logits = np.full((2, 16), 4.0, np.float32)
    logits[:, slice(*CODE_ID_RANGE)] = np.log([[0.5, 0.3, 0.2], [0.3, 0.3, 0.4]])
    return StubModel(*logits)


def image_context(rows):
    """Return rows whose next item is an image and that are longer than an image."""
    few = jax.tree.map(
        lambda x: jnp.repeat(x[None, :PATCHES], rows, axis=0), clean_view(packed_row())
    )
    return ar_images.ImageContext(
        view=few,
        prompt_image=ar_images.ImageContent(jnp.zeros((rows, PATCHES), int), few.latents),
        is_given=jnp.zeros(rows, bool),
        logits=jnp.broadcast_to(make_stub().conditional_logits, (rows, 16)),
        cache=LengthCache(jnp.full(rows, PATCHES + 5)),
    )


def zero_table():
    return EmbeddingTable(
        embedding=jnp.zeros((16, tiny.EMBED)), mask_embedding=jnp.zeros(tiny.EMBED)
    )


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_codes_have_the_guided_distribution(scale):
    rows = 4000
    draw = ar_images.TokenImageSampler(
        16, CODE_ID_RANGE, token_sampling.TokenSampling(), make_guidance(scale)
    )
    sampled = draw(
        make_stub(), zero_table(), jax.random.split(jax.random.key(0), rows), image_context(rows)
    )
    conditional, by_itself = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.3, 0.4])
    share = by_itself * (conditional / by_itself) ** scale
    share /= share.sum()
    for n in range(PATCHES):
        counts = collections.Counter(np.asarray(sampled.image.ids)[:, n].tolist())
        assert counts.keys() == set(range(*CODE_ID_RANGE))
        for code, p in zip(range(*CODE_ID_RANGE), share, strict=True):
            assert abs(counts[code] - rows * p) < 4 * np.sqrt(rows * p * (1 - p))


def test_scale_1_is_no_guidance_and_costs_nothing():
    """Check that with scale 1 the inputs stay unchanged and the network is not called."""
    none, place = make_guidance(1.0), image_context(2)
    branch = none.init_unconditional(None, None, place.view, place.cache, place.logits)
    assert branch[0] is place.cache
    assert branch[1] is place.logits
    assert none.combine(place.logits) is place.logits
    tiny.assert_trees_close(none.repeat(place.view), place.view, atol=0)
    assert (none.num_branches, none.nfe(7)) == (1, 7)


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("solver", ["euler", "heun", "renoise", "codes"])
def test_nfe_equals_the_number_of_passes(solver, scale):
    """Count the forward passes of an image and a document; a pass of two branches counts twice."""
    network, rows = make_stub(), 3
    network.conditional_logits[vocabs.IMAGE] = network.conditional_logits[vocabs.END] = 5.0
    plan = SamplingPlan(ode.make_schedule("euler" if solver == "codes" else solver, 3))
    draw = (
        ar_images.TokenImageSampler(
            16, CODE_ID_RANGE, token_sampling.TokenSampling(), make_guidance(scale)
        )
        if solver == "codes"
        else ar_images.FlowImageSampler(
            predictions.X1Prediction(), plan.schedule, make_guidance(scale)
        )
    )
    draw(network, zero_table(), row_keys(SEED, rows), image_context(rows))
    jax.effects_barrier()
    assert sum(network.batch_sizes) / rows == draw.nfe(PATCHES)
    once = {"euler": 3, "heun": 5, "renoise": 3, "codes": PATCHES}[solver]
    guided = once if scale == 1 else 2 * once + 1
    assert draw.nfe(PATCHES) == guided + (solver != "codes")
    network.batch_sizes.clear()
    alphabet = token_sampling.TokenSpace(16, (13, 16), vocabs.IMAGE, vocabs.END, (2, 2))
    prompt = jax.tree.map(lambda x: x[None, :1].repeat(rows, 0), packed_row())
    prompt = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 23), *[(0, 0)] * (x.ndim - 2)]), prompt)
    prompt = prompt.replace(insertable=prompt.insertable.at[:, 0].set(2))
    keys, choice = row_keys(1, rows), plan.token_sampling
    sample = steps.sample(
        autoregressive.make_sampler(alphabet, draw, choice, network, zero_table(), keys, prompt)
    )
    jax.effects_barrier()
    assert np.asarray(sample.canvas.is_image).any()
    assert sum(network.batch_sizes) / rows == int(sample.nfe)


@pytest.mark.parametrize("kind", ["transfusion", "chameleon"])
def test_text_is_not_guided(kind):
    paradigm, _ = make_paradigm(kind)
    plan = SamplingPlan(ode.make_schedule("euler", 2), image_guidance_scale=3.0)
    paradigm.validate(plan)
    with pytest.raises(
        UserError, match=rf"sampling\.text_guidance_scale=2\.0: {kind}.* guides images"
    ):
        paradigm.validate(dataclasses.replace(plan, text_guidance_scale=2.0))


@pytest.mark.parametrize("kind", ["transfusion", "chameleon"])
def test_a_confidence_threshold_is_refused(kind):
    paradigm, _ = make_paradigm(kind)
    plan = SamplingPlan(ode.make_schedule("renoise", 2), confidence_threshold=0.9)
    with pytest.raises(UserError, match=r"confidence_threshold=0\.9: .* never changes a token"):
        paradigm.validate(plan)
