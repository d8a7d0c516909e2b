"""Pictures alone: how they are shown so in training, and what they are guided by in sampling."""

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
    ar_state,
    autoregressive,
    ode,
    token_sampling,
)
from oneflow_jax.samplers.base import SamplingPlan
from tests import tiny
from tests.paradigms import test_chameleon, test_transfusion
from tests.paradigms.oracle import SEED, TABLE, row_keys

PATCHES = 4
LENGTH = test_chameleon.LENGTH
TOY_IMAGE = Image(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
make_guidance = functools.partial(ar_guidance.ARGuidance, image_token=vocabs.IMAGE)


def pack_documents(*documents, layout=None):
    """One row of several documents, after one another."""
    layout = layout or dataclasses.replace(tiny.make_layout(LENGTH, 0), markers=True)
    rows = [layout.row(Document(parts)) for parts in documents]
    spans = np.cumsum([0] + [row["span"].max() for row in rows])
    joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    shifts = [np.full(len(row["kind"]), by) for row, by in zip(rows, spans, strict=False)]
    joined["span"] += np.concatenate(shifts)
    canvas = jax.tree.map(lambda x: jnp.asarray(x[0]), layout.canvas([joined]))
    numbers = np.concatenate([np.full(len(row["kind"]), n + 1) for n, row in enumerate(rows)])
    return canvas.replace(segment=jnp.zeros(LENGTH, int).at[: len(numbers)].set(numbers))


def packed_row():
    """Words and a picture; two pictures and words; words alone, twice."""
    return pack_documents(
        (Text("red"), TOY_IMAGE),
        (TOY_IMAGE, Text("blue"), TOY_IMAGE, Text("green")),
        (Text("red"),),
        (Text("red"),),
    )


def clean_view(canvas, modality=None):
    kind = (
        canvas.kind if modality is None else jnp.where(canvas.is_image, int(modality), canvas.kind)
    )
    embeds = TABLE.rows[canvas.ids]
    ones = jnp.ones(canvas.ids.shape)
    return canvases.noisy_canvas(canvas.replace(kind=kind), embeds, canvas.latents, ones)


@pytest.mark.parametrize("gone", [(1,), (1, 2), (2, 3, 4)])
@pytest.mark.parametrize(
    ("attend", "told"),
    [(AttentionPattern.MIXED, Modality.IMAGE), (AttentionPattern.CAUSAL, Modality.TEXT)],
)
def test_pictures_of_bereft_documents_see_themselves_and_what_opens_them(attend, told, gone):
    canvas = packed_row()
    view = clean_view(canvas, told)
    segment, span = np.asarray(canvas.segment), np.asarray(canvas.span)
    image, kept = np.asarray(canvas.is_image), ~np.isin(segment, (0, *gone))
    # As small as that of a document is the number of some picture.
    assert span[image].min() == 4 == segment.max()
    dropped = canvas.is_text & canvas.free & np.isin(segment, gone)
    found, bereft = ar_guidance.image_only_view(view, canvas, dropped, vocabs.IMAGE)
    np.testing.assert_array_equal(bereft, np.isin(segment, gone))
    firsts = [n for n in np.flatnonzero(image) if not image[n - 1]]
    assert len(firsts) == 3
    seen, before = (
        np.asarray(
            attention_mask.from_canvas(jax.tree.map(lambda x: x[None], one), attend).visible()
        )[0]
        for one in (found, view)
    )
    np.testing.assert_array_equal(seen[kept], before[kept])
    left = kept.copy()
    for first in (first for first in firsts if segment[first] in gone):
        picture = np.arange(first, first + PATCHES)
        assert (span[picture] == span[first]).all()
        for slot in (first - 1, *picture):
            stop = slot if attend is AttentionPattern.CAUSAL or slot < first else picture[-1]
            np.testing.assert_array_equal(np.flatnonzero(seen[slot]), range(first - 1, stop + 1))
        left[[first - 1, *picture]] = True
    np.testing.assert_array_equal(np.asarray(found.kind), np.where(left, view.kind, Modality.PAD))
    assert not np.asarray(found.segment)[~left].any()
    for name in ("position", "embeds", "latents", "clock"):
        np.testing.assert_array_equal(getattr(found, name), getattr(view, name))


def test_nothing_dropped_nothing_changed():
    canvas = packed_row()
    none = jnp.zeros(LENGTH, bool)
    found, bereft = ar_guidance.image_only_view(clean_view(canvas), canvas, none, vocabs.IMAGE)
    tiny.assert_trees_close(found, clean_view(canvas), atol=0)
    assert not bereft.any()


def make_paradigm(kind, task_mixture=tasks.ALL_TARGETS):
    """The paradigm and a layout for it."""
    if kind == "transfusion":
        lay = dataclasses.replace(tiny.make_layout(LENGTH, 0), markers=True)
        return dataclasses.replace(test_transfusion.paradigm(), mix=task_mixture), lay
    lay = test_chameleon.layout()
    words, codes = ((ids.start, ids.stop) for ids in (lay.vocab.text, lay.vocab.codes))
    alphabet = ar_state.TokenSpace(tiny.VOCAB, words, vocabs.IMAGE, vocabs.END, (2, 2))
    weights = (("text", 1.0), ("image", 1.0), ("z", 1e-5))
    return Chameleon(alphabet, codes, task_mixture, weights), lay


@pytest.mark.parametrize("kind", ["transfusion", "chameleon"])
def test_in_training_some_documents_tell_of_their_pictures_alone(kind):
    """Of their words nothing is asked; of their pictures, and of other documents, all."""
    caption = (Text("red"), TOY_IMAGE)
    canvas = pack_documents(
        caption, caption, (TOY_IMAGE, Text("blue")), layout=make_paradigm(kind)[1]
    )

    def corrupted(mix):
        paradigm, _ = make_paradigm(kind, mix)
        u = jnp.full(LENGTH, 0.3)
        return jax.jit(jax.vmap(lambda k: paradigm.corrupt(k, u, canvas, TABLE)))(
            row_keys(SEED, 40)
        )

    _, whole = corrupted(tasks.ALL_TARGETS)
    view, targets = corrupted(tasks.TaskMixture((0.0, 1.0, 0.0, 0.0, 0.0), 0.5))
    np.testing.assert_array_equal(targets.image, whole.image)
    assert np.asarray(targets.image).any(1).all()
    words, bereft = np.asarray(canvas.is_text & (canvas.ids != vocabs.IMAGE)), []
    for number in (1, 2, 3):
        of = np.asarray(canvas.segment) == number
        bereft.append((np.asarray(view.kind)[:, of & words] == Modality.PAD).all(1))
        asked = np.asarray(whole.text)[:, of] & ~bereft[-1][:, None]
        np.testing.assert_array_equal(np.asarray(targets.text)[:, of], asked)
    assert 40 < np.sum(bereft) < 80
    assert len(set(zip(*np.array(bereft).tolist(), strict=True))) == 8  # Each by its own luck.


@flax.struct.dataclass
class LengthCache:
    """A cache of nothing but its length."""

    length: jax.Array

    def advanced(self, by):
        return LengthCache(self.length + by)

    def above(self, other):
        return LengthCache(jnp.concatenate([self.length, other.length]))

    def top(self, rows):
        return LengthCache(self.length[:rows])


@dataclasses.dataclass(frozen=True, eq=False)
class StubModel:
    """Says one thing of documents that are longer than a picture, another of pictures alone.

    `calls` are the rows it was shown, each time that it was asked.
    """

    after_words: np.ndarray
    by_itself: np.ndarray
    calls: list = dataclasses.field(default_factory=list)

    def cache(self, rows, slots):
        del slots
        return LengthCache(jnp.zeros(rows, int))

    def prefill(self, view, cache):
        return self.after(view, cache)

    def after(self, view, cache):
        rows = view.kind.shape[0]
        jax.debug.callback(lambda: self.calls.append(rows))
        alone_ = (cache.length <= PATCHES)[:, None, None]
        logits = jnp.where(
            alone_,
            jnp.asarray(self.by_itself)[None, None],
            jnp.asarray(self.after_words)[None, None],
        )
        shape = (*view.kind.shape, logits.shape[-1])
        outputs = {"token_logits": jnp.broadcast_to(logits, shape), "image": 0.5 * view.latents}
        return outputs, cache


CODE_ID_RANGE = (10, 13)


def make_stub():
    """Of three codes; words would be likelier by far."""
    logits = np.full((2, 16), 4.0, np.float32)
    logits[:, slice(*CODE_ID_RANGE)] = np.log([[0.5, 0.3, 0.2], [0.3, 0.3, 0.4]])
    return StubModel(*logits)


def image_context(rows):
    """Rows whose picture comes next, after so many slots that it is not alone."""
    few = jax.tree.map(
        lambda x: jnp.repeat(x[None, :PATCHES], rows, axis=0), clean_view(packed_row())
    )
    return ar_images.ImageContext(
        view=few,
        source=ar_images.ImageContent(jnp.zeros((rows, PATCHES), int), few.latents),
        given=jnp.zeros(rows, bool),
        logits=jnp.broadcast_to(make_stub().after_words, (rows, 16)),
        cache=LengthCache(jnp.full(rows, PATCHES + 5)),
    )


def zero_table():
    return EmbeddingTable(rows=jnp.zeros((16, tiny.EMBED)), mask=jnp.zeros(tiny.EMBED))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_codes_come_as_often_as_both_together_say(scale):
    rows = 4000
    draw = ar_images.TokenImageSampler(
        16, CODE_ID_RANGE, token_sampling.TokenSampling(), make_guidance(scale)
    )
    made = draw(
        make_stub(), zero_table(), jax.random.split(jax.random.key(0), rows), image_context(rows)
    )
    conditional, by_itself = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.3, 0.4])
    share = by_itself * (conditional / by_itself) ** scale
    share /= share.sum()
    for n in range(PATCHES):
        found = collections.Counter(np.asarray(made.picture.ids)[:, n].tolist())
        assert found.keys() == set(range(*CODE_ID_RANGE))
        for code, p in zip(range(*CODE_ID_RANGE), share, strict=True):
            assert abs(found[code] - rows * p) < 4 * np.sqrt(rows * p * (1 - p))


def test_scale_1_is_no_guidance_and_costs_nothing():
    """What goes in comes out: the network is not asked, and nothing is multiplied."""
    none, place = make_guidance(1.0), image_context(2)
    begun = none.init_unconditional(None, None, place.view, place.cache, place.logits)
    assert begun[0] is place.cache
    assert begun[1] is place.logits
    assert none.combine(place.logits) is place.logits
    tiny.assert_trees_close(none.repeat(place.view), place.view, atol=0)
    assert (none.copies, none.passes(7)) == (1, 7)


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("solver", ["euler", "heun", "renoise", "codes"])
def test_passes_are_counted_as_they_are_made(solver, scale):
    """Of a picture, and of all that is written; two copies of a row are two passes."""
    network, rows = make_stub(), 3
    network.after_words[vocabs.IMAGE] = network.after_words[vocabs.END] = 5.0
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
    assert sum(network.calls) / rows == draw.passes(PATCHES)
    once = {"euler": 3, "heun": 5, "renoise": 3, "codes": PATCHES}[solver]
    guided = once if scale == 1 else 2 * once + 1
    assert draw.passes(PATCHES) == guided + (solver != "codes")
    network.calls.clear()
    alphabet = ar_state.TokenSpace(16, (13, 16), vocabs.IMAGE, vocabs.END, (2, 2))
    prompt = jax.tree.map(lambda x: x[None, :1].repeat(rows, 0), packed_row())
    prompt = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 23), *[(0, 0)] * (x.ndim - 2)]), prompt)
    prompt = prompt.replace(opening=prompt.opening.at[:, 0].set(2))
    sample = autoregressive.ARSampler(alphabet, draw, plan)(
        network, zero_table(), row_keys(1, rows), prompt
    )
    jax.effects_barrier()
    assert np.asarray(sample.canvas.is_image).any()
    assert sum(network.calls) / rows == int(sample.passes)


@pytest.mark.parametrize("kind", ["transfusion", "chameleon"])
def test_words_are_not_guided(kind):
    paradigm, _ = make_paradigm(kind)
    plan = SamplingPlan(ode.make_schedule("euler", 2), guidance=3.0)
    paradigm.check(plan)
    with pytest.raises(
        UserError, match=rf"sampling\.text_guidance=2\.0: {kind}.* has its pictures"
    ):
        paradigm.check(dataclasses.replace(plan, text_guidance=2.0))
