"""Deterministic splits and choices, which depend only on a name and are equal in all runs."""

import hashlib


def hash_bucket(name: str, num_buckets: int) -> int:
    """Map `name` to one of `num_buckets` equal buckets, 0 to `num_buckets` - 1.

    The hash is cryptographic because Python's `hash()` differs between processes.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_buckets
