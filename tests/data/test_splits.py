import collections

from oneflow_jax.data import splits


def test_buckets_are_even_and_fixed():
    counts = collections.Counter(splits.hash_bucket(f"name {i}", 4) for i in range(4000))
    assert sorted(counts) == [0, 1, 2, 3]
    assert max(counts.values()) - min(counts.values()) < 200
    # A changed hash would move concepts between training and held-out sets.
    assert [splits.hash_bucket(name, 1000) for name in ("tiger", "owl", "é")] == [421, 767, 743]
