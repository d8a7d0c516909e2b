import collections
import dataclasses
import itertools

import jax
import numpy as np
import pytest

from oneflow_jax.canvas import Modality
from oneflow_jax.data import pipeline, streams, toy
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.errors import UserError
from tests import tiny

ROWS = 4
LENGTH = 64
FIELDS = ("ids", "latents", "modality", "span", "position", "is_given")


@dataclasses.dataclass(frozen=True)
class Distinct:
    """Toy documents with distinct contents."""

    documents: tuple[Document, ...]

    @classmethod
    def make(cls, count):
        by_content = {content(make_row(item)): item for item in toy.Toy(documents=200)}
        return cls(tuple(itertools.islice(by_content.values(), count)))

    def __len__(self):
        return len(self.documents)

    def __getitem__(self, index):
        return self.documents[index]


def make_row(document):
    return tiny.make_layout(LENGTH).row(document)


def content(row):
    return (row["ids"].tobytes(), row["latents"].tobytes())


def make_batches(source=None, seed=0, num_workers=0):
    return pipeline.canvas_batches(
        source or toy.Toy(documents=50),
        tiny.make_layout(LENGTH),
        batch_size=ROWS,
        seed=seed,
        num_workers=num_workers,
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    )


def take(iterator, count):
    return [jax.tree.map(np.asarray, next(iterator)) for _ in range(count)]


def assert_same(batches, expected):
    for actual_batch, expected_batch in zip(batches, expected, strict=True):
        tiny.assert_trees_close(actual_batch, expected_batch, atol=0)


def iter_documents(batch):
    """Yield the slots of each packed document, with its spans numbered from 1."""
    for b in range(len(batch.ids)):
        for number in range(1, batch.segment[b].max() + 1):
            at = np.flatnonzero(batch.segment[b] == number)
            assert np.array_equal(at, np.arange(at[0], at[-1] + 1)), "a document is not contiguous"
            row = {name: getattr(batch, name)[b, at] for name in FIELDS}
            yield row | {"span": row["span"] - row["span"][0] + 1}


def test_packing_keeps_documents_whole_and_apart():
    source = Distinct.make(30)
    known = {content(make_row(item)): make_row(item) for item in source}
    batches = take(iter(make_batches(source)), 4)
    rows = [row for batch in batches for row in iter_documents(batch)]
    assert len(rows) > 4 * ROWS, "no row has two documents"
    for row in rows:
        original = known[content(row)]
        for name in FIELDS:
            np.testing.assert_array_equal(row[name], original[name], err_msg=name)
    for batch in batches:
        for b in range(ROWS):
            padding = batch.segment[b] == 0
            for name in FIELDS:
                assert not getattr(batch, name)[b, padding].any(), name
            # Span numbers increase along the row; two documents never share a number.
            spans = batch.span[b, ~padding]
            assert spans[0] == 1
            assert set(np.diff(spans)) <= {0, 1}
            pairs = set(zip(batch.segment[b, ~padding], spans, strict=True))
            assert len(pairs) == spans.max()
            assert np.all((batch.modality[b] == Modality.PAD) == padding)


def test_batches_depend_on_the_seed():
    first, again, other_seed = (take(iter(make_batches(seed=seed)), 3) for seed in (0, 0, 1))
    assert_same(first, again)
    assert any(np.any(x.ids != y.ids) for x, y in zip(first, other_seed, strict=True))


def iter_contents(source, seed=0):
    """Yield the content of each packed document, row by row, without an end."""
    for batch in iter(make_batches(source, seed=seed)):
        yield from (content(row) for row in iter_documents(jax.tree.map(np.asarray, batch)))


@pytest.fixture
def one_bin(monkeypatch):
    """Fill one row after another, so that documents keep their order."""
    monkeypatch.setattr(pipeline, "PACKING_BINS", 1)


@pytest.mark.usefixtures("one_bin")
def test_every_epoch_is_shuffled_differently():
    source = Distinct.make(12)
    reads = list(itertools.islice(iter_contents(source), 24))
    first, second = reads[:12], reads[12:]
    assert sorted(first) == sorted(second)
    assert first != second
    assert first != [content(make_row(item)) for item in source]
    assert first != list(itertools.islice(iter_contents(source, seed=1), 12))


@pytest.mark.usefixtures("one_bin")
def test_no_document_is_lost_within_an_epoch():
    source = Distinct.make(23)
    reads = list(itertools.islice(iter_contents(source), 5 * 23))
    for epoch in range(5):
        counts = collections.Counter(reads[23 * epoch : 23 * (epoch + 1)])
        assert len(counts) == 23
        assert set(counts.values()) == {1}


@pytest.mark.parametrize("workers", [0, 2])
def test_iterator_resume(workers):
    """Check that a saved state resumes at the next batch, in the middle of an epoch."""
    iterator = iter(make_batches(num_workers=workers))
    take(iterator, 3)
    state = iterator.state
    expected = take(iterator, 3)
    fresh = iter(make_batches(num_workers=workers))
    fresh.set_state(state)
    assert_same(take(fresh, 3), expected)
    # If all batches were equal, the test would pass without resuming.
    assert any(np.any(x.ids != y.ids) for x, y in itertools.pairwise(expected))
    for opened in (iterator, fresh):
        opened.close()


def test_batches_have_the_given_sharding():
    mesh = tiny.sharding.make_mesh({"data": 2, "fsdp": 2, "context": 2})
    where = tiny.sharding.batch_sharding(mesh)
    batches = pipeline.canvas_batches(
        toy.Toy(documents=50),
        tiny.make_layout(LENGTH),
        batch_size=8,
        seed=0,
        num_workers=0,
        sharding=where,
    )
    batch = next(iter(batches))
    assert all(x.sharding.is_equivalent_to(where, x.ndim) for x in jax.tree.leaves(batch))
    assert batch.ids.shape == (8, LENGTH)
    assert batch.latents.shape == (8, LENGTH, tiny.CODEC.channels)


SIDE = 2


def make_image(number):
    return np.full((SIDE, SIDE, 3), number, np.uint8)


def make_albums(count=12, max_images=3):
    """Return documents of 0 to `max_images` images; image k of document n has number 10 n + k."""
    return [
        Document((Text("a"), *(Image(make_image(10 * n + k)) for k in range(n % (max_images + 1)))))
        for n in range(count)
    ]


def make_image_batches(source, batch_size=3, **overrides):
    overrides = {"pixels": SIDE, "seed": 0, "num_workers": 0} | overrides
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return pipeline.image_batches(source, batch_size=batch_size, sharding=where, **overrides)


def take_image_ids(iterator, num_batches):
    """Return the numbers of the images of the next batches."""
    ids = []
    for batch in take(iterator, num_batches):
        assert batch.dtype == np.uint8
        assert batch.shape[1:] == (SIDE, SIDE, 3)
        assert np.all(batch == batch[:, :1, :1, :1])
        ids += batch[:, 0, 0, 0].tolist()
    return ids


def test_one_image_per_document_and_epoch():
    ids = take_image_ids(
        iter(make_image_batches(make_albums())), 3 * 40
    )  # 9 of the 12 documents have images.
    have = [n for n in range(12) if n % 4]
    for epoch in range(40):
        assert sorted(number // 10 for number in ids[9 * epoch : 9 * (epoch + 1)]) == have
    # After 40 epochs every image was used.
    assert set(ids) == {10 * n + k for n in have for k in range(n % 4)}


def test_images_of_a_document_are_equally_frequent():
    ids = take_image_ids(iter(make_image_batches(make_albums(4), batch_size=60)), 20)
    counts = collections.Counter(number for number in ids if number >= 30)
    assert sum(counts.values()) == 400
    assert all(abs(counts[30 + k] - 400 / 3) < 4 * np.sqrt(400 * 2 / 9) for k in range(3))


def test_image_order_differs_by_epoch_and_seed():
    first, again, other_seed = (
        take_image_ids(iter(make_image_batches(make_albums(), seed=seed)), 6) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other_seed
    order = [number // 10 for number in first]
    assert order[:9] != order[9:]


@pytest.mark.parametrize("workers", [0, 2])
def test_image_batches_resume_within_an_epoch(workers):
    iterator = iter(make_image_batches(make_albums(), batch_size=2, num_workers=workers))
    take_image_ids(iterator, 3)
    state = iterator.state
    expected = take_image_ids(iterator, 6)
    fresh = iter(make_image_batches(make_albums(), batch_size=2, num_workers=workers))
    fresh.set_state(state)
    assert take_image_ids(fresh, 6) == expected
    assert len(set(expected)) > 4
    for opened in (iterator, fresh):
        opened.close()


def test_cache_does_not_change_images():
    cached, read = (
        take_image_ids(iter(make_image_batches(make_albums(), cache_size=cache)), 9)
        for cache in (100, 0)
    )
    assert cached == read


@pytest.mark.parametrize("workers", [0, 1])
def test_wrong_image_size_is_reported(workers):
    odd = Document((Image(np.zeros((SIDE, SIDE + 1, 3), np.uint8)),))
    iterator = iter(make_image_batches([odd] * 8, num_workers=workers))
    with pytest.raises(UserError, match=r"data\.pixels=2.*\(2, 3, 3\)"):
        next(iterator)
    iterator.close()


def test_image_batches_have_the_given_sharding():
    mesh = tiny.sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    where = tiny.sharding.row_sharding(mesh)
    batch = next(
        iter(
            pipeline.image_batches(
                make_albums(), pixels=SIDE, batch_size=8, seed=0, num_workers=0, sharding=where
            )
        )
    )
    assert batch.sharding.is_equivalent_to(where, batch.ndim)


def make_streams(source, num_streams=2, num_workers=0, batch_size=ROWS, sharding=None):
    return pipeline.canvas_batches(
        source,
        tiny.make_layout(LENGTH),
        batch_size=batch_size,
        num_streams=num_streams,
        seed=0,
        num_workers=num_workers,
        sharding=sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    )


def select_stream(batches, stream_id):
    """Return the batches of one stream alone, as a process without other streams gets them."""
    return dataclasses.replace(
        batches,
        streams={stream_id: batches.streams[stream_id]},
        assemble=lambda pieces: pieces[stream_id],
    )


def test_batch_concatenates_its_streams():
    whole = make_streams(toy.Toy(documents=200), num_streams=4, batch_size=8)
    batches = take(iter(whole), 3)
    parts = [take(iter(select_stream(whole, number)), 3) for number in range(4)]
    for batch, *pieces in zip(batches, *parts, strict=True):
        joined = jax.tree.map(lambda *rows: np.concatenate(rows), *pieces)
        tiny.assert_trees_close(batch, joined, atol=0)
        assert all(len(rows.ids) == 2 for rows in pieces)


@pytest.mark.usefixtures("one_bin")
def test_streams_share_the_documents_of_an_epoch():
    source = Distinct.make(12)
    whole = make_streams(source, num_streams=3, batch_size=3)
    reads = []
    for number in range(3):
        rows = itertools.chain.from_iterable(
            iter_documents(batch) for batch in iter(select_stream(whole, number))
        )
        reads.append([content(row) for row in itertools.islice(rows, 4)])
    assert sorted(itertools.chain.from_iterable(reads)) == sorted(
        content(make_row(item)) for item in source
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_and_state_do_not_depend_on_the_workers(workers):
    source = toy.Toy(documents=50)
    thread, others = iter(make_streams(source)), iter(make_streams(source, num_workers=workers))
    assert_same(take(others, 2), take(thread, 2))
    assert others.state == thread.state
    expected = take(thread, 2)
    # Resume with another number of workers.
    fresh = iter(make_streams(source))
    fresh.set_state(others.state)
    assert_same(take(fresh, 2), expected)
    for opened in (thread, others, fresh):
        opened.close()


def test_process_resumes_streams_of_another_process():
    whole = make_streams(toy.Toy(documents=50))
    both = iter(whole)
    take(both, 2)
    one = iter(select_stream(whole, 1))
    one.set_state(both.state)
    assert list(one.state) == ["1"]
    expected = take(both, 1)
    (rows,) = take(one, 1)
    np.testing.assert_array_equal(rows.ids, expected[0].ids[ROWS // 2 :])
    with pytest.raises(KeyError, match="1"):
        one.set_state({"0": both.state["0"]})


def test_streams_belong_to_processes_that_hold_their_rows():
    """Check devices that share a stream, hold several streams, or hold the same rows."""
    source = toy.Toy(documents=50)
    expected = take(iter(make_streams(source, batch_size=8)), 1)
    for axes in ({"data": 8, "fsdp": 1, "tensor": 1}, {"data": 1, "fsdp": 2, "tensor": 4}):
        where = tiny.sharding.row_sharding(tiny.sharding.make_mesh(axes))
        assert_same(take(iter(make_streams(source, batch_size=8, sharding=where)), 1), expected)


@dataclasses.dataclass(frozen=True)
class FakeSharding:
    """A stub of a sharding: the devices of this process hold the given rows."""

    row_slices: tuple[slice, ...]

    def addressable_devices_indices_map(self, shape):
        return {number: (rows, slice(None)) for number, rows in enumerate(self.row_slices)}


@pytest.mark.parametrize(
    ("held", "numbers"),
    [
        ((slice(None),), [0, 1, 2, 3]),
        ((slice(0, 4), slice(4, 8)), [0, 1]),
        ((slice(8, 12), slice(8, 12)), [2]),
        ((slice(2, 3), slice(15, 16)), [0, 3]),
        ((slice(3, 5),), [0, 1]),
    ],
)
def test_a_process_runs_the_streams_of_its_rows(held, numbers):
    batches = make_streams(
        toy.Toy(documents=50), num_streams=4, batch_size=16, sharding=FakeSharding(held)
    )
    assert sorted(batches.streams) == numbers


def test_indivisible_streams_are_reported():
    streams.check_divisible(8, 4)
    with pytest.raises(UserError, match=r"data\.num_streams=3 does not divide batch_size=8"):
        streams.check_divisible(8, 3)
