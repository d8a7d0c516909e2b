"""Choice of the fraction of a user's documents that are held out from training.

Hashes of documents decide which of them are held out (`shard.hash_position`), so the number of
held-out documents is random: 5 % of 100 documents are 1 to 9 in 97 % of cases. A diagnosis needs
`diagnosis.MIN_DOCUMENTS` of them. The hashes of a small folder are known once it is prepared. So
this module does not choose a fraction at which enough documents are likely, but the smallest one at
which there are enough; it holds out no more documents than needed.
"""

import logging
import math
from collections.abc import Iterator

import ml_collections

from oneflow_jax.build import custom_data
from oneflow_jax.build.choice_record import Choice
from oneflow_jax.data import shuffle
from oneflow_jax.data.custom import prepare, shard
from oneflow_jax.data.custom.store import PreparedData
from oneflow_jax.data.document import Document
from oneflow_jax.runtime import distributed, workdir
from oneflow_jax.training import diagnosis

MAX_DOCUMENTS = 1_000
"""In larger data, the configured fraction is kept without reading the documents: the default of
5 % holds out more than enough."""

MAX_PARTS = 10
"""At most one document in this number is held out to reach the number for a diagnosis."""

UNIT = 1e-4
"""Chosen fractions are multiples of this number."""


def choose_fraction(config: ml_collections.ConfigDict) -> Choice:
    """Choose the smallest fraction that holds out enough documents for a diagnosis.

    It is never below the configured fraction. Only documents with text and images count, because
    only they take part in a diagnosis; if there are none, all documents count. The data is prepared
    with the configured fraction, and again if another fraction is chosen.

    Args:
        config: the run's configuration, with own data.

    Raises:
        UserError: the data does not exist or cannot be used.
    """
    with distributed.primary_first():
        default = config.source.heldout_fraction
        positions = _measure_positions(config)
        if len(positions) < 2:
            return Choice(default, _explain(config))
        wanted = min(diagnosis.MIN_DOCUMENTS, max(1, len(positions) // MAX_PARTS))
        # A document is held out if its position is below the fraction.
        needed = round((math.floor(positions[wanted - 1] / UNIT) + 1) * UNIT, 4)
        if needed > default and needed < 1:
            logging.info(
                "source.heldout_fraction=%g would hold out %d of %d documents, and %d are wanted. "
                "The documents are prepared with source.heldout_fraction=%g, too.",
                default, sum(position < default for position in positions), len(positions), wanted,
                needed,
            )  # fmt: skip
            config = workdir.replace_values(config, {"source.heldout_fraction": needed})
        return Choice(config.source.heldout_fraction, _explain(config))


def _measure_positions(config: ml_collections.ConfigDict) -> list[float]:
    """Return the sorted hash positions of the documents; [] if there are many documents."""
    prepared = custom_data.open_unchecked(config)
    if prepared.stats.documents.total() > MAX_DOCUMENTS:
        return []
    documents = list(_read_documents(prepared))
    both = [document for document in documents if shuffle.has_both(document)]
    return sorted(map(shard.hash_position, both or documents))


def _read_documents(prepared: PreparedData) -> Iterator[Document]:
    for split, count in prepared.stats.documents.items():
        if count:
            source = prepare.open_folder(prepared.folder, split)
            yield from (source[index] for index in range(count))


def _explain(config: ml_collections.ConfigDict) -> str:
    """Return the reason for a fraction: how many documents it holds out."""
    counts = custom_data.open_prepared(config).stats.documents
    held_out, total = counts["heldout"], counts.total()
    clause = f"because it holds out {held_out:,} of {total:,} documents"
    if held_out < diagnosis.MIN_DOCUMENTS:
        limit = f"at most about one in {MAX_PARTS} is held out to reach it"
        return f"{clause}; a diagnosis needs {diagnosis.MIN_DOCUMENTS}, but {limit}"
    return f"{clause}; a diagnosis needs {diagnosis.MIN_DOCUMENTS}"
