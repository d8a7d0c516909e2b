"""Deterministic choices, such as splits, which depend only on a name and are equal in all runs."""

import hashlib


def hash_bucket(name: str, num_buckets: int) -> int:
    """Map `name` to one of `num_buckets` equal buckets, 0 to `num_buckets` - 1.

    Python's `hash()` cannot be used here, because its values differ between processes.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_buckets
