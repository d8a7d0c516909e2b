"""From configuration to what evaluation asks: `scoring` knows how it is judged."""

import functools
import json
import logging
import pathlib
from collections.abc import Callable, Sequence

import ml_collections
from etils import epath

from oneflow_jax.build import data, paradigms
from oneflow_jax.data import document as documents
from oneflow_jax.data import emoji as emoji_data
from oneflow_jax.data import emoji_concepts, sources
from oneflow_jax.data import layout as layouts
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import (
    base,
    caption_metrics,
    digits,
    emoji,
    full_suite,
    image_name_judge,
    image_set_distance,
    interleaved,
)
from oneflow_jax.runtime import distributed


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what cannot be scored, so that it is told before training.

    Raises:
        UserError: an unknown score, or one that needs packages that are not there.
    """
    paradigms.chosen("evaluation.score", config.evaluation.score, _MAKERS)
    if config.evaluation.thorough and config.evaluation.score != "emoji":
        raise UserError(
            f"evaluation.thorough=True is for evaluation.score='emoji', not "
            f"{config.evaluation.score!r}."
        )
    for field in ("inception", "clip"):
        path = config.evaluation[field]
        if path and not epath.Path(path).exists():
            raise UserError(f"evaluation.{field}={path}: there is no such file or folder.")
    needed = {
        image_set_distance.PACKAGE: image_set_distance,
        caption_metrics.PACKAGE: caption_metrics,
    }
    missing = [name for name, module in needed.items() if module.missing()]
    if config.evaluation.thorough and missing:
        raise UserError(
            f"evaluation.thorough=True needs {' and '.join(missing)}: pip install -r "
            "requirements-metrics.txt, or, but in a comparison, do without, by False."
        )


def suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.Suite:
    """What the configured data set asks of a model."""
    return _MAKERS[config.evaluation.score](config, layout)


def _nothing(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.Suite:
    del config, layout
    return base.Suite((), {})


def _digits(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.Suite:
    del layout
    train, heldout = (data.source(config, split) for split in ("train", "heldout"))
    return digits.suite(train, heldout, config.evaluation.samples)


def _emoji(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.Suite:
    settings = emoji_settings(config)
    samples, train = config.evaluation.samples, data.source(config, "train")
    several = data.source(config, "combinations") if settings.interleaved else ()
    plain = emoji.suite(
        settings.drawn(), train if layout.grows else (), several, samples, grows=layout.grows
    )
    if not config.evaluation.thorough:
        return plain
    ours = () if layout.grows else [skeleton(train[n], layout) for n in range(samples)]
    return full_suite.extended(plain, known(config), ours, samples)


_MAKERS: dict[str, Callable[[ml_collections.ConfigDict, layouts.Layout], base.Suite]] = {
    "": _nothing,
    "digits": _digits,
    "emoji": _emoji,
}


def emoji_settings(config: ml_collections.ConfigDict) -> emoji_data.Settings:
    """Of the documents about emoji."""
    given = {name: value for name, value in config.source.items() if name != "name"}
    return emoji_data.Settings(**given)


def known(config: ml_collections.ConfigDict) -> full_suite.Known:
    """What thorough figures compare with: documents of training, their last first."""
    settings, train = emoji_settings(config), data.source(config, "train")
    concepts = settings.drawn()
    every = emoji_concepts.concepts(settings.pixels, None, settings.categories)
    count = len(train)
    return full_suite.Known(
        concepts=concepts,
        unseen=[concept for concept in every if concept.held_out],
        real=[train[count - 1 - n] for n in range(min(count, config.evaluation.samples))],
        training=_words(config.data.dir, config.source.to_json()),
        look=_look(config, concepts),
        inception=config.evaluation.inception,
        clip=config.evaluation.clip,
    )


@functools.lru_cache(maxsize=2)
def _words(data_dir: str, source: str) -> tuple[str, ...]:
    """The words of all documents of training, which take some seconds to read."""
    train = sources.open_source(data_dir=data_dir, split="train", **json.loads(source))
    return tuple(train[n].words() for n in range(len(train)))


def skeleton(document: Document, layout: layouts.Layout) -> Document:
    """The layout of a document: gaps for its pictures, and for its runs of words of their slots."""
    parts: list[documents.Part] = []
    for run in documents.runs(document.parts):
        if not documents.is_text(run[0]):
            parts.append(Gap("image"))
            continue
        tokens = sum(len(layout.vocab.encode(part.text)) for part in run)
        more = tokens // layout.text_slots * layout.text_slots
        parts += [Gap("text", more)] if more else []
        parts.append(Gap("text"))
    return Document(tuple(parts))


def _look(
    config: ml_collections.ConfigDict, concepts: Sequence[emoji_concepts.Concept]
) -> interleaved.Look:
    """What pictures show, by a judge that is trained when it is first asked, and kept."""
    folder = pathlib.Path(config.data.dir) / "judges"
    path = folder / f"{emoji_settings(config).name}.npz"

    @functools.cache
    def judge() -> image_name_judge.Judge:
        with distributed.leader_first():
            if path.exists():
                return image_name_judge.Judge.load(path)
            logging.info("Training the judge of pictures and names; it is kept in %s.", path)
            trained = image_name_judge.Judge.train(concepts)
            folder.mkdir(parents=True, exist_ok=True)
            trained.save(path)
            return trained

    return lambda pictures: judge().retrieved(pictures)
