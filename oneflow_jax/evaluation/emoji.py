"""Evaluation suite of the data set `emoji`: the tasks of `label_tasks`, and editing.

The classifier decides that an image shows the nearest emoji of the training data (`nearest_image`).
The metrics of editing are in `evaluation.editing`. The task `document` has reference metrics:

    reference_num_images_1      fraction of training documents with 1 image; also _2, _3 and _4
"""

import functools
from collections.abc import Sequence

from oneflow_jax.data import emoji_concepts
from oneflow_jax.data.document import Document
from oneflow_jax.evaluation import base, editing, label_tasks
from oneflow_jax.evaluation.nearest_image import NearestImage


def make_suite(
    concepts: Sequence[emoji_concepts.Concept],
    train_documents: Sequence[Document],
    heldout_documents: Sequence[Document],
    num_samples: int,
) -> base.EvalSuite:
    """Make the suite: tasks of up to `num_samples` documents each, for the concepts in training.

    Args:
        concepts: all concepts, including those held out of training.
        train_documents: training documents, for the reference metrics.
        heldout_documents: documents for the editing task; may be empty. Their combinations of
            concepts do not occur in training documents.
        num_samples: number of documents per task.
    """
    seen = [concept for concept in concepts if concept.in_training]
    classifier = NearestImage.from_images(seen)
    asked = label_tasks.spread_evenly(seen, num_samples)
    tasks = label_tasks.make_tasks(asked, seen, classifier)
    if heldout_documents:
        documents = [heldout_documents[i] for i in range(min(num_samples, len(heldout_documents)))]
        images = {concept.name: concept.pixels for concept in seen}
        tasks.append(
            editing.make_task(documents, images, lambda pixels: classifier([pixels])[0], seed=0)
        )
    return base.EvalSuite(
        tuple(tasks),
        functools.partial(label_tasks.image_count_fractions, "reference", train_documents),
    )
