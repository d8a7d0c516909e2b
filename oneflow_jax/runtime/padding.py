"""Sizes of batches and rows, rounded up so that only few programs are compiled."""

import jax

MIN_LENGTH = 32
"""Minimum row length in slots.

Shorter rows save a few hundredths of a second per call (docs/python.md), but each length needs
programs of its own, which take several seconds to compile.
"""


def padded_batch_size(mesh: jax.sharding.Mesh, num_documents: int, max_rows: int) -> int:
    """Return the batch size for `num_documents` documents, at most `max_rows`.

    Each device gets 2, 4, 6, 8, 12, 16, 24, ... rows, so that programs are compiled for only a few
    batch sizes. A single row would be computed by other instructions, which round differently: from
    2 rows on, each document has the same bits in batches of all sizes.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    each = -(-num_documents // ways)
    return min(ways * (2 if each <= 2 else max(4, _round_up(each))), max_rows)


def round_max_rows(mesh: jax.sharding.Mesh, max_rows: int) -> int:
    """Return a maximum of rows, rounded up to the same number, at least 2, for each device."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    return ways * max(2, -(-max_rows // ways))


def padded_length(num_slots: int, max_length: int) -> int:
    """Return the row length for documents of `num_slots` slots, at most `max_length`.

    Rows have 32, 48, 64, 96, 128, ... slots, so that programs are compiled for only a few lengths.
    """
    return min(max(MIN_LENGTH, _round_up(num_slots)), max_length)


def _round_up(number: int) -> int:
    """Return the next of 1, 2, 3, 4, 6, 8, 12, ..., whose ratio is at most 1.5 from 2 on."""
    power = 1 << (number - 1).bit_length()
    between = power * 3 // 4
    return between if power >= 4 and number <= between else power
