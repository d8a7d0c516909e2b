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


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses what cannot be scored, so that it is told before training.

    Raises:
        UserError: an unknown score, or one that needs packages that are not there.
    """
    paradigms.choose("evaluation.score", config.evaluation.score, _BUILDERS)
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
    missing = [name for name, module in needed.items() if module.is_missing()]
    if config.evaluation.thorough and missing:
        raise UserError(
            f"evaluation.thorough=True needs {' and '.join(missing)}: pip install -r "
            "requirements-metrics.txt, or, but in a comparison, do without, by False."
        )


def make_suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.EvalSuite:
    """What the configured data set asks of a model."""
    return _BUILDERS[config.evaluation.score](config, layout)


def _empty_suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.EvalSuite:
    del config, layout
    return base.EvalSuite((), {})


def _digits_suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.EvalSuite:
    del layout
    train, heldout = (data.open_split(config, split) for split in ("train", "heldout"))
    return digits.make_suite(train, heldout, config.evaluation.samples)


def _emoji_suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.EvalSuite:
    settings = emoji_config(config)
    samples, train = config.evaluation.samples, data.open_split(config, "train")
    several = data.open_split(config, "combinations") if settings.interleaved else ()
    plain = emoji.make_suite(
        settings.drawn(),
        train if layout.grows else (),
        several,
        samples,
        variable_length=layout.grows,
    )
    if not config.evaluation.thorough:
        return plain
    ours = () if layout.grows else [layout_template(train[n], layout) for n in range(samples)]
    return full_suite.extend_suite(plain, reference_data(config), ours, samples)


_BUILDERS: dict[str, Callable[[ml_collections.ConfigDict, layouts.Layout], base.EvalSuite]] = {
    "": _empty_suite,
    "digits": _digits_suite,
    "emoji": _emoji_suite,
}


def emoji_config(config: ml_collections.ConfigDict) -> emoji_data.Settings:
    """Of the documents about emoji."""
    given = {name: value for name, value in config.source.items() if name != "name"}
    return emoji_data.Settings(**given)


def reference_data(config: ml_collections.ConfigDict) -> full_suite.ReferenceData:
    """What thorough figures compare with: documents of training, their last first."""
    settings, train = emoji_config(config), data.open_split(config, "train")
    concepts = settings.drawn()
    every = emoji_concepts.load(settings.pixels, None, settings.categories)
    count = len(train)
    return full_suite.ReferenceData(
        concepts=concepts,
        unseen=[concept for concept in every if concept.held_out],
        real=[train[count - 1 - n] for n in range(min(count, config.evaluation.samples))],
        training=_training_texts(config.data.dir, config.source.to_json()),
        look=_image_classifier(config, concepts),
        inception=config.evaluation.inception,
        clip=config.evaluation.clip,
    )


@functools.lru_cache(maxsize=2)
def _training_texts(data_dir: str, source: str) -> tuple[str, ...]:
    """The words of all documents of training, which take some seconds to read."""
    train = sources.open_dataset(data_dir=data_dir, split="train", **json.loads(source))
    return tuple(train[n].words() for n in range(len(train)))


def layout_template(document: Document, layout: layouts.Layout) -> Document:
    """The layout of a document: gaps for its pictures, and for its runs of words of their slots."""
    parts: list[documents.Part] = []
    for run in documents.group_runs(document.parts):
        if not documents.is_text(run[0]):
            parts.append(Gap("image"))
            continue
        tokens = sum(len(layout.vocab.encode(part.text)) for part in run)
        more = tokens // layout.text_slots * layout.text_slots
        parts += [Gap("text", more)] if more else []
        parts.append(Gap("text"))
    return Document(tuple(parts))


def _image_classifier(
    config: ml_collections.ConfigDict, concepts: Sequence[emoji_concepts.Concept]
) -> interleaved.ImageClassifier:
    """What pictures show, by a judge that is trained when it is first asked, and kept."""
    folder = pathlib.Path(config.data.dir) / "judges"
    path = folder / f"{emoji_config(config).name}.npz"

    @functools.cache
    def judge() -> image_name_judge.Judge:
        with distributed.primary_first():
            if path.exists():
                return image_name_judge.Judge.load(path)
            logging.info("Training the judge of pictures and names; it is kept in %s.", path)
            trained = image_name_judge.Judge.train(concepts)
            folder.mkdir(parents=True, exist_ok=True)
            trained.save(path)
            return trained

    return lambda pictures: judge().classify(pictures)
