"""What else can be asked of a model of emoji documents, by networks and judges.

Of the tasks of `emoji`: how far pictures made for captions are from real ones (`pictures`), how
captions compare with right ones (`captions`), documents made from nothing (`written`). With weights
that the user has:

    fid            Fréchet distance by Inception v3, as `distances`: FID, of as many pictures
    clip_score     100 times the cosine of picture and caption by a CLIP, the mean; not below 0

And of what training never showed:

    unseen_named   share of pictures, made for names that training has not, that show what they name
    unseen_close   share of them that are closer to a picture of training than real ones are
    unseen_ratio   how far they are from training by how far real ones are
    (`precision_recall.measure_memorization`)
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
"""Forms of a caption after its picture."""

ScoreFn = Callable[[Sequence[Document]], base.MetricResult]


@dataclasses.dataclass(frozen=True)
class ReferenceData:
    """What the figures compare with.

    Attributes:
        concepts: of training, and those held out of it.
        unseen: more that are not in training, for their pictures.
        real: documents of training, at least as many as are made.
        training: words of documents of training.
        look: what pictures show.
        inception: file of weights for FID; "" for none.
        clip: folder of a CLIP for its score; "" for none.
    """

    concepts: Sequence[emoji_concepts.Concept]
    unseen: Sequence[emoji_concepts.Concept]
    real: Sequence[Document]
    training: Sequence[str]
    look: interleaved.ImageClassifier
    inception: str = ""
    clip: str = ""

    @property
    def train_concepts(self) -> list[emoji_concepts.Concept]:
        """The concepts of training."""
        return [concept for concept in self.concepts if not concept.held_out]

    # Loaded once, whatever the numbers of forward passes that are compared.

    @functools.cached_property
    def inception_network(self) -> Inception:
        """Of the file."""
        return inception.load(self.inception)

    @functools.cached_property
    def clip_network(self) -> Clip:
        """Of the folder."""
        return clip.load(self.clip)


def extend_suite(
    suite: base.EvalSuite, reference: ReferenceData, layouts: Sequence[Document], num_samples: int
) -> base.EvalSuite:
    """The suite with these figures too.

    Args:
        suite: of `emoji.suite`.
        reference: what to compare with.
        layouts: of documents to be made by models that do not choose how many pictures there are;
            empty for the others, who have that among their tasks.
        num_samples: documents of each task.
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
    def score(made: Sequence[Document]) -> base.MetricResult:
        return base.merge(task.score(made), score_fn(made))

    return dataclasses.replace(task, score=score)


def _score_images(
    reference: ReferenceData, num_samples: int, generated: Sequence[Document]
) -> base.MetricResult:
    shown = {concept.name: concept.pixels for concept in reference.train_concepts}
    names = emoji.prompt_names(reference.train_concepts, num_samples)
    real, ours = np.stack([shown[name] for name in names]), _stack_images(generated)
    found = {}
    if reference.inception:
        seen = (inception.features(reference.inception_network, some) for some in (ours, real))
        found["fid"] = fid_kid.frechet_distance(*seen)
    if reference.clip:
        words = [emoji.caption_prompt(name).text for name in names]
        found["clip_score"] = float(np.mean(clip.scores(reference.clip_network, ours, words)))
    return base.merge(image_set_distance.score(ours, real), base.MetricResult({}, numbers=found))


def _score_captions(
    reference: ReferenceData, num_samples: int, generated: Sequence[Document]
) -> base.MetricResult:
    phrases = map(sentences.noun_phrase, emoji.prompt_names(reference.train_concepts, num_samples))
    right = [[form.format(phrase) for form in CAPTION_TEMPLATES] for phrase in phrases]
    words = [document.words() for document in generated]
    each = caption_metrics.compute_per_caption(words, right)

    def spread(seed: int) -> base.BootstrapSamples:
        return {
            name: bootstrap.resample(lambda n, x=x: float(x[n].mean()), len(x), seed)
            for name, x in each.items()
        }

    return base.MetricResult(
        {}, numbers=caption_metrics.compute_metrics(words, right), spread=spread
    )


def _score_documents(reference: ReferenceData, generated: Sequence[Document]) -> base.MetricResult:
    return from_scratch.score(
        reference.concepts, reference.real, reference.training, reference.look, generated
    )


def _score_unseen_concepts(
    reference: ReferenceData, names: Sequence[str], generated: Sequence[Document]
) -> base.MetricResult:
    looks = reference.look(_stack_images(generated))
    named = base.score_fractions(
        {"unseen_named": [a == b for a, b in zip(looks, names, strict=True)]}
    )
    ours, training, other = (
        image_set_distance.features(some)
        for some in (
            _stack_images(generated),
            np.stack([concept.pixels for concept in reference.train_concepts]),
            np.stack([concept.pixels for concept in reference.unseen]),
        )
    )
    found = precision_recall.measure_memorization(ours, training, other)
    new = base.MetricResult({"unseen_close": found.close}, numbers={"unseen_ratio": found.ratio})
    return base.merge(named, new)


def _stack_images(documents: Sequence[Document]) -> np.ndarray:
    return np.stack([pixels for document in documents for pixels in document.pictures()])
