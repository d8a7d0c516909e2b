"""Splits and choices that depend on a name alone, so that they never change between runs."""

import hashlib


def hash_bucket(name: str, num_buckets: int) -> int:
    """Returns which of `num_buckets` equal shares `name` falls into, 0 to `num_buckets` - 1.

    A cryptographic hash, not `hash()`: the latter differs from process to process.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_buckets
