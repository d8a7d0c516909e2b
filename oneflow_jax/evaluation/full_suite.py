"""Additional metrics of labeled images, computed with pretrained networks and a trained classifier.

These metrics are added to the tasks of `label_tasks`: distances between generated and real images
(`image_set_distance`), comparison of captions with references (`caption_metrics`), and metrics of
documents generated without a prompt (`from_scratch`). For two metrics, the user must provide
weights:

    fid            Fréchet distance of Inception v3 features; depends on the number of images
    clip_score     mean of 100 max(0, cosine of CLIP's image and caption embeddings)

Three metrics use images that are generated for names without any image in training:

    heldout_concept_accuracy  fraction of these images that show the name
    memorization_rate         fraction of these images that are closer to a training image than
                              95 % of new real images are
    nn_distance_ratio         median distance to the nearest training image, divided by the same
                              median of new real images

`precision_recall.measure_memorization` computes the last two. The task "composition" (see
`emoji_styles`) has similar metrics; its new real images are those of held-out pairs.

    composition_kid                KID of the generated images and the real images of held-out pairs
    composition_kid_train          KID of the generated images and all training images
    composition_memorization_rate  as `memorization_rate`
    composition_nn_distance        median distance to the nearest training image
    composition_nn_distance_ratio  as `nn_distance_ratio`
    composition_judge              fraction of the generated images that the judge labels correctly;
                                   the judge was not trained on real images of held-out pairs
    composition_judge_name         fraction of these images with the right name; also _style

KID is `kid_efficientnet` (`image_set_distance`). The reference metrics are the same metrics for the
real images of held-out pairs, with the prefix "reference_". They lack
`composition_nn_distance_ratio` and `composition_kid`, which would be 1 and 0 by definition. For the
reference metrics the judge labels a shifted, blurred and noisy copy of each real image.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from oneflow_jax.data import sentences, style_captions
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.data.labels import LabeledImage
from oneflow_jax.evaluation import (
    base,
    bootstrap,
    caption_metrics,
    emoji_styles,
    fid_kid,
    from_scratch,
    image_set_distance,
    interleaved,
    label_tasks,
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
        images: training images and held-out images; the model generates images for the names of
            both.
        heldout_images: images of names that are not in training: the "new real images" of
            `memorization_rate` and `nn_distance_ratio`.
        real: training documents, at least as many as are generated.
        train_texts: texts of training documents.
        classifier: function that labels what images show.
        judge: function that labels images and was not trained on the images of held-out pairs.
        inception_weights: path of the Inception v3 weights for FID; "" to skip FID.
        clip_dir: folder of a CLIP model for the CLIP score; "" to skip it.
    """

    images: Sequence[LabeledImage]
    heldout_images: Sequence[LabeledImage]
    real: Sequence[Document]
    train_texts: Sequence[str]
    classifier: interleaved.ImageClassifier
    judge: interleaved.ImageClassifier
    inception_weights: str = ""
    clip_dir: str = ""

    @property
    def train_images(self) -> list[LabeledImage]:
        """The training images."""
        return [image for image in self.images if image.in_training]

    @property
    def unseen_images(self) -> list[LabeledImage]:
        """Images with a name that no training image has."""
        names = {image.name for image in self.train_images}
        return [image for image in self.images if image.name not in names]

    @property
    def heldout_pairs(self) -> list[LabeledImage]:
        """Held-out images with a name that training images also have."""
        names = {image.name for image in self.train_images}
        return [image for image in self.images if not image.in_training and image.name in names]

    # The properties below are cached, so that evaluation at several NFE computes them only once.

    @functools.cached_property
    def train_features(self) -> Float[np.ndarray, "n 1280"]:
        """Features of the training images."""
        return _features(self.train_images)

    @functools.cached_property
    def inception_network(self) -> Inception:
        """Inception v3 with the weights of `inception_weights`."""
        return inception.load(self.inception_weights)

    @functools.cached_property
    def clip_network(self) -> Clip:
        """CLIP model in `clip_dir`."""
        return clip.load(self.clip_dir)


def extend_suite(
    suite: base.EvalSuite, reference: ReferenceData, num_samples: int
) -> base.EvalSuite:
    """Return the suite with the metrics of this module added.

    Args:
        suite: the suite of `emoji.make_suite` or `emoji_styles.make_suite`.
        reference: real data and networks to compare with.
        num_samples: number of documents per task.
    """
    extras = {
        "text_to_image": functools.partial(_score_images, reference, num_samples),
        "image_to_text": functools.partial(_score_captions, reference, num_samples),
        "composition": functools.partial(_score_composition, reference, num_samples),
        "document": functools.partial(_score_documents, reference),
    }
    tasks = [
        _add_metrics(task, extras[task.name]) if task.name in extras else task
        for task in suite.tasks
    ]
    if reference.unseen_images:
        asked = label_tasks.spread_evenly(reference.unseen_images, num_samples)
        names = [image.name for image in asked]
        prompts = tuple(
            Document((label_tasks.caption_prompt(name), Gap("image"))) for name in names
        )
        score = functools.partial(_score_unseen_names, reference, names)
        tasks.append(base.EvalTask("unseen", prompts, score))

    def measure_reference() -> dict[str, float]:
        return {**suite.measure_reference(), **measure_heldout_pairs(reference)}

    return base.EvalSuite(tuple(tasks), measure_reference)


def _add_metrics(task: base.EvalTask, score_fn: ScoreFn) -> base.EvalTask:
    def score(generated: Sequence[Document]) -> base.MetricResult:
        return base.merge(task.score(generated), score_fn(generated))

    return dataclasses.replace(task, score=score)


def _score_images(
    reference: ReferenceData, num_samples: int, generated: Sequence[Document]
) -> base.MetricResult:
    asked = label_tasks.spread_evenly(reference.train_images, num_samples)
    real = np.stack([image.pixels for image in asked])
    ours = label_tasks.stack_images(generated)
    metrics = {}
    if reference.inception_weights:
        seen = (inception.features(reference.inception_network, images) for images in (ours, real))
        metrics["fid"] = fid_kid.frechet_distance(*seen)
    if reference.clip_dir:
        words = [label_tasks.caption_prompt(image.name).text for image in asked]
        metrics["clip_score"] = float(np.mean(clip.scores(reference.clip_network, ours, words)))
    return base.merge(
        image_set_distance.score(ours, real), base.MetricResult({}, unbounded=metrics)
    )


def _score_captions(
    reference: ReferenceData, num_samples: int, generated: Sequence[Document]
) -> base.MetricResult:
    right = [
        [
            form.format(sentences.noun_phrase(label))
            for label in dict.fromkeys((image.name, image.label))
            for form in CAPTION_TEMPLATES
        ]
        for image in label_tasks.spread_evenly(reference.train_images, num_samples)
    ]
    words = [style_captions.split_keywords(document)[0].text() for document in generated]
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
        reference.images, reference.real, reference.train_texts, reference.classifier, generated
    )


def _score_unseen_names(
    reference: ReferenceData, names: Sequence[str], generated: Sequence[Document]
) -> base.MetricResult:
    images = label_tasks.stack_images(generated)
    named = base.score_fractions(
        label_tasks.compare_labels("heldout_concept_accuracy", names, reference.classifier(images))
    )
    result = precision_recall.measure_memorization(
        image_set_distance.features(images),
        reference.train_features,
        _features(reference.heldout_images),
    )
    new = base.MetricResult(
        {"memorization_rate": result.memorization_rate},
        unbounded={"nn_distance_ratio": result.nn_distance_ratio},
    )
    return base.merge(named, new)


def _score_composition(
    reference: ReferenceData, num_samples: int, generated: Sequence[Document]
) -> base.MetricResult:
    images = label_tasks.stack_images(generated)
    asked = label_tasks.spread_evenly(reference.heldout_pairs, num_samples)
    labels = [image.label for image in asked]
    ours = image_set_distance.features(images)
    training, heldout = reference.train_features, _features(reference.heldout_pairs)
    result = precision_recall.measure_memorization(ours, training, heldout)
    distances = precision_recall.nearest_distances(ours, training)

    def compute(numbers: np.ndarray) -> list[float]:
        return [image_set_distance.kid(ours[numbers], real) for real in (heldout, training)]

    names = ("composition_kid", "composition_kid_train")

    def spread(seed: int) -> base.BootstrapSamples:
        draws = bootstrap.half_sample(compute, len(ours), seed)
        return dict(zip(names, draws.T, strict=True))

    distances_result = base.MetricResult(
        {"composition_memorization_rate": result.memorization_rate},
        unbounded={
            **dict(zip(names, compute(np.arange(len(ours))), strict=True)),
            "composition_nn_distance": float(np.median(distances)),
            "composition_nn_distance_ratio": result.nn_distance_ratio,
        },
        bootstrap=spread,
    )
    judged = label_tasks.compare_labels("composition_judge", labels, reference.judge(images))
    return base.merge(base.score_fractions(judged), distances_result)


def measure_heldout_pairs(reference: ReferenceData) -> dict[str, float]:
    """Compute the metrics of the task "composition" for the real images of held-out pairs.

    Returns:
        The metrics of the task with the prefix "reference_"; {} without held-out pairs.
    """
    if not reference.heldout_pairs:
        return {}
    real, training = _features(reference.heldout_pairs), reference.train_features
    result = precision_recall.measure_memorization(real, training, real)
    distances = precision_recall.nearest_distances(real, training)
    return {
        "reference_composition_kid_train": image_set_distance.kid(real, training),
        "reference_composition_memorization_rate": result.memorization_rate,
        "reference_composition_nn_distance": float(np.median(distances)),
        **emoji_styles.measure_classifier(
            "reference_composition_judge", reference.judge, reference.heldout_pairs
        ),
    }


def _features(images: Sequence[LabeledImage]) -> Float[np.ndarray, "n 1280"]:
    return image_set_distance.features(np.stack([image.pixels for image in images]))
