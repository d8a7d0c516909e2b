"""The sample of prepared documents that a tokenizer is trained on."""

import heapq
from collections.abc import Sequence

from oneflow_jax.data.custom import deduplicate
from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.data.record_files import RecordFiles


def choose_documents(plan: Manifest, files: RecordFiles, count: int) -> Sequence[int]:
    """Return the indices of the `count` documents with the smallest hashes, in their order.

    So the sample is a random one of all documents, and does not depend on the engine that prepared
    them.

    Args:
        plan: plan of the prepared data.
        files: records of one split.
        count: maximum number of documents.
    """
    if plan.num_hash_shards:  # The documents are in the order of their hashes.
        return range(min(count, len(files)))
    ranked = ((deduplicate.hash_record(files[index]), index) for index in range(len(files)))
    return [index for _, index in heapq.nsmallest(count, ranked)]
