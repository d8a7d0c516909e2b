"""Additional metrics of the emoji data set, by pretrained networks and a trained classifier.

They are added to the tasks of `emoji`: distances between generated and real images
(`image_set_distance`), comparison of captions with references (`caption_metrics`), and metrics of
documents generated without a prompt (`from_scratch`). For two metrics, the user must provide
weights:

    fid            Fréchet distance of Inception v3 features; depends on the number of images
    clip_score     mean of 100 max(0, cosine of CLIP's image and caption embeddings)

Three metrics use images that are generated for the names of concepts held out of training:

    heldout_concept_accuracy  fraction of these images that show the named concept
    memorization_rate         fraction of these images that are closer to a training image than the
                              5th percentile of new real images
    nn_distance_ratio         median distance to the nearest training image, divided by the same
                              median of new real images

`precision_recall.measure_memorization` computes the last two.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from oneflow_jax.data import emoji_concepts, sentences
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.evaluation import (
    base,
    bootstrap,
    caption_metrics,
    emoji,
    fid_kid,
    from_scratch,
    image_set_distance,
    interleaved,
    precision_recall,
)
from oneflow_jax.pretrained import clip, inception
from oneflow_jax.pretrained.clip import Clip
from oneflow_jax.pretrained.inception import Inception

CAPTION_TEMPLATES = [
    form.removeprefix("[0] ") for form in sentences.CAPTION_TEMPLATES if form[0] == "["
]
"""Caption templates for documents whose image comes first."""

ScoreFn = Callable[[Sequence[Document]], base.MetricResult]


@dataclasses.dataclass(frozen=True)
class ReferenceData:
    """Real data and networks that the metrics need.

    Attributes:
        concepts: training concepts, and held-out concepts (`held_out`); the model generates images
            for the names of both.
        heldout_concepts: further concepts that are not in training; their images are the "new real
            images" of `memorization_rate` and `nn_distance_ratio`.
        real: training documents, at least as many as are generated.
        train_texts: texts of training documents.
        classifier: function that names what images show.
        inception_weights: path of the Inception v3 weights for FID; "" to skip FID.
        clip_dir: folder of a CLIP model for the CLIP score; "" to skip it.
    """

    concepts: Sequence[emoji_concepts.Concept]
    heldout_concepts: Sequence[emoji_concepts.Concept]
    real: Sequence[Document]
    train_texts: Sequence[str]
    classifier: interleaved.ImageClassifier
    inception_weights: str = ""
    clip_dir: str = ""

    @property
    def train_concepts(self) -> list[emoji_concepts.Concept]:
        """Concepts that are not held out of training."""
        return [concept for concept in self.concepts if not concept.held_out]

    # Cached: evaluation at several NFE loads the networks only once.

    @functools.cached_property
    def inception_network(self) -> Inception:
        """Inception v3 with the weights of `inception_weights`."""
        return inception.load(self.inception_weights)

    @functools.cached_property
    def clip_network(self) -> Clip:
        """CLIP model in `clip_dir`."""
        return clip.load(self.clip_dir)


def extend_suite(
    suite: base.EvalSuite, reference: ReferenceData, layouts: Sequence[Document], num_samples: int
) -> base.EvalSuite:
    """Return the suite with the metrics of this module added.

    Args:
        suite: the suite of `emoji.make_suite`.
        reference: real data and networks to compare with.
        layouts: prompts of the task "document" for models that cannot choose the number of images:
            each fixes the number of images of a whole document. Empty for models that choose it,
            whose suite already has the task.
        num_samples: number of documents per task.
    """
    extras = {
        "text_to_image": functools.partial(_score_images, reference, num_samples),
        "image_to_text": functools.partial(_score_captions, reference, num_samples),
        "document": functools.partial(_score_documents, reference),
    }
    tasks = [
        _add_metrics(task, extras[task.name]) if task.name in extras else task
        for task in suite.tasks
    ]
    if layouts:
        tasks.append(base.EvalTask("document", tuple(layouts), extras["document"]))
    if any(concept.held_out for concept in reference.concepts):
        names = emoji.prompt_names([one for one in reference.concepts if one.held_out], num_samples)
        prompts = tuple(Document((emoji.caption_prompt(name), Gap("image"))) for name in names)
        score = functools.partial(_score_unseen_concepts, reference, names)
        tasks.append(base.EvalTask("unseen", prompts, score))
    return dataclasses.replace(suite, tasks=tuple(tasks))


def _add_metrics(task: base.EvalTask, score_fn: ScoreFn) -> base.EvalTask:
    def score(generated: Sequence[Document]) -> base.MetricResult:
        return base.merge(task.score(generated), score_fn(generated))

    return dataclasses.replace(task, score=score)


def _score_images(
    reference: ReferenceData, num_samples: int, generated: Sequence[Document]
) -> base.MetricResult:
    pixels_by_name = {concept.name: concept.pixels for concept in reference.train_concepts}
    names = emoji.prompt_names(reference.train_concepts, num_samples)
    real, ours = np.stack([pixels_by_name[name] for name in names]), _stack_images(generated)
    metrics = {}
    if reference.inception_weights:
        seen = (inception.features(reference.inception_network, images) for images in (ours, real))
        metrics["fid"] = fid_kid.frechet_distance(*seen)
    if reference.clip_dir:
        words = [emoji.caption_prompt(name).text for name in names]
        metrics["clip_score"] = float(np.mean(clip.scores(reference.clip_network, ours, words)))
    return base.merge(
        image_set_distance.score(ours, real), base.MetricResult({}, unbounded=metrics)
    )


def _score_captions(
    reference: ReferenceData, num_samples: int, generated: Sequence[Document]
) -> base.MetricResult:
    phrases = map(sentences.noun_phrase, emoji.prompt_names(reference.train_concepts, num_samples))
    right = [[form.format(phrase) for form in CAPTION_TEMPLATES] for phrase in phrases]
    words = [document.text() for document in generated]
    each = caption_metrics.compute_per_caption(words, right)

    def spread(seed: int) -> base.BootstrapSamples:
        return {
            name: bootstrap.resample(lambda n, x=x: float(x[n].mean()), len(x), seed)
            for name, x in each.items()
        }

    return base.MetricResult(
        {}, unbounded=caption_metrics.compute_metrics(words, right), bootstrap=spread
    )


def _score_documents(reference: ReferenceData, generated: Sequence[Document]) -> base.MetricResult:
    return from_scratch.score(
        reference.concepts, reference.real, reference.train_texts, reference.classifier, generated
    )


def _score_unseen_concepts(
    reference: ReferenceData, names: Sequence[str], generated: Sequence[Document]
) -> base.MetricResult:
    looks = reference.classifier(_stack_images(generated))
    named = base.score_fractions(
        {"heldout_concept_accuracy": [a == b for a, b in zip(looks, names, strict=True)]}
    )
    ours, training, heldout = (
        image_set_distance.features(images)
        for images in (
            _stack_images(generated),
            np.stack([concept.pixels for concept in reference.train_concepts]),
            np.stack([concept.pixels for concept in reference.heldout_concepts]),
        )
    )
    result = precision_recall.measure_memorization(ours, training, heldout)
    new = base.MetricResult(
        {"memorization_rate": result.memorization_rate},
        unbounded={"nn_distance_ratio": result.nn_distance_ratio},
    )
    return base.merge(named, new)


def _stack_images(documents: Sequence[Document]) -> np.ndarray:
    return np.stack([pixels for document in documents for pixels in document.images()])
