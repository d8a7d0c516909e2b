"""Tests of the mixture of two data sets."""

import collections

import pytest

from oneflow_jax.data import mixed_source, toy


@pytest.mark.parametrize(
    ("num_main", "num_extra", "fraction"), [(7, 100, 0.3), (100, 7, 0.3), (5, 5, 0.9), (30, 1, 0.1)]
)
def test_fraction_and_documents(num_main, num_extra, fraction):
    main = [("main", n) for n in range(num_main)]
    extra = [("extra", n) for n in range(num_extra)]
    mixed = mixed_source.MixedSource(main, extra, fraction)
    counts = collections.Counter(mixed[n] for n in range(len(mixed)))
    kept = sum(count for (name, _), count in counts.items() if name == "extra")
    assert kept / len(mixed) == pytest.approx(fraction, abs=1 / len(mixed))
    assert len({counts[item] for item in main}) == 1
    times = [counts[item] for item in extra]
    assert max(times) - min(times) <= 1
    assert min(times) >= 1
    for index in (-1, len(mixed)):
        with pytest.raises(IndexError):
            mixed[index]


def test_documents_of_a_data_set():
    source = toy.Toy(documents=4)
    mixed = mixed_source.MixedSource(source, source, 0.5)
    assert [item.text() for item in mixed] == [item.text() for item in source] * 2
