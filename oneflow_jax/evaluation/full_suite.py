"""What else can be asked of a model of emoji documents, by networks and judges.

Of the tasks of `emoji`: how far pictures made for captions are from real ones (`pictures`), how
captions compare with right ones (`captions`), documents made from nothing (`written`). With weights
that the user has:

    fid            Fréchet distance by Inception v3, as `distances`: FID, of as many pictures
    clip_score     100 times the cosine of picture and caption by a CLIP, the mean; not below 0

And of what training never showed:

    unseen_named   share of pictures, made for names that training has not, that show what they name
    unseen_close   share of them that are closer to a picture of training than real ones are
    unseen_ratio   how far they are from training by how far real ones are (`coverage.copies`)
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

CAPTIONS = [form.removeprefix("[0] ") for form in sentences.CAPTION_TEMPLATES if form[0] == "["]
"""Forms of a caption after its picture."""

Extra = Callable[[Sequence[Document]], base.Score]


@dataclasses.dataclass(frozen=True)
class Known:
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
    look: interleaved.Look
    inception: str = ""
    clip: str = ""

    @property
    def seen(self) -> list[emoji_concepts.Concept]:
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


def extended(
    suite: base.Suite, known: Known, layouts: Sequence[Document], samples: int
) -> base.Suite:
    """The suite with these figures too.

    Args:
        suite: of `emoji.suite`.
        known: what to compare with.
        layouts: of documents to be made by models that do not choose how many pictures there are;
            empty for the others, who have that among their tasks.
        samples: documents of each task.
    """
    extras = {
        "text_to_image": functools.partial(_pictures, known, samples),
        "image_to_text": functools.partial(_captions, known, samples),
        "document": functools.partial(_documents, known),
    }
    tasks = [
        _with(task, extras[task.name]) if task.name in extras else task for task in suite.tasks
    ]
    if layouts:
        tasks.append(base.Task("document", tuple(layouts), extras["document"]))
    if any(concept.held_out for concept in known.concepts):
        names = emoji.asked([one for one in known.concepts if one.held_out], samples)
        prompts = tuple(Document((emoji.caption(name), Gap("image"))) for name in names)
        score = functools.partial(_unseen, known, names)
        tasks.append(base.Task("unseen", prompts, score))
    return dataclasses.replace(suite, tasks=tuple(tasks))


def _with(task: base.Task, extra: Extra) -> base.Task:
    def score(made: Sequence[Document]) -> base.Score:
        return base.together(task.score(made), extra(made))

    return dataclasses.replace(task, score=score)


def _pictures(known: Known, samples: int, made: Sequence[Document]) -> base.Score:
    shown = {concept.name: concept.pixels for concept in known.seen}
    names = emoji.asked(known.seen, samples)
    real, ours = np.stack([shown[name] for name in names]), _all(made)
    found = {}
    if known.inception:
        seen = (inception.features(known.inception_network, some) for some in (ours, real))
        found["fid"] = fid_kid.frechet(*seen)
    if known.clip:
        words = [emoji.caption(name).text for name in names]
        found["clip_score"] = float(np.mean(clip.scores(known.clip_network, ours, words)))
    return base.together(image_set_distance.score(ours, real), base.Score({}, numbers=found))


def _captions(known: Known, samples: int, made: Sequence[Document]) -> base.Score:
    phrases = map(sentences.phrase, emoji.asked(known.seen, samples))
    right = [[form.format(phrase) for form in CAPTIONS] for phrase in phrases]
    words = [document.words() for document in made]
    each = caption_metrics.each(words, right)

    def spread(seed: int) -> base.Draws:
        return {
            name: bootstrap.drawn(lambda n, x=x: float(x[n].mean()), len(x), seed)
            for name, x in each.items()
        }

    return base.Score({}, numbers=caption_metrics.figures(words, right), spread=spread)


def _documents(known: Known, made: Sequence[Document]) -> base.Score:
    return from_scratch.score(known.concepts, known.real, known.training, known.look, made)


def _unseen(known: Known, names: Sequence[str], made: Sequence[Document]) -> base.Score:
    looks = known.look(_all(made))
    named = base.shares({"unseen_named": [a == b for a, b in zip(looks, names, strict=True)]})
    ours, training, other = (
        image_set_distance.features(some)
        for some in (
            _all(made),
            np.stack([concept.pixels for concept in known.seen]),
            np.stack([concept.pixels for concept in known.unseen]),
        )
    )
    found = precision_recall.copies(ours, training, other)
    new = base.Score({"unseen_close": found.close}, numbers={"unseen_ratio": found.ratio})
    return base.together(named, new)


def _all(made: Sequence[Document]) -> np.ndarray:
    return np.stack([pixels for document in made for pixels in document.pictures()])
