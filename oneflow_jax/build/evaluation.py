"""Builders of evaluation suites from a configuration; `evaluation` computes the metrics."""

import functools
import json
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from etils import epath

from oneflow_jax.build import data, paradigms
from oneflow_jax.data import document as documents
from oneflow_jax.data import emoji as emoji_data
from oneflow_jax.data import emoji_concepts, sources
from oneflow_jax.data import emoji_styles as emoji_styles_data
from oneflow_jax.data import layout as layouts
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import (
    base,
    caption_metrics,
    digits,
    emoji,
    emoji_styles,
    full_suite,
    image_name_judge,
    image_set_distance,
    interleaved,
)
from oneflow_jax.runtime import distributed


def validate(config: ml_collections.ConfigDict) -> None:
    """Check the settings of evaluation, which would otherwise raise errors only after training.

    Raises:
        UserError: the suite is unknown, or its files or packages are missing.
    """
    paradigms.choose("evaluation.suite", config.evaluation.suite, _BUILDERS)
    if config.evaluation.full_metrics and config.evaluation.suite != "emoji":
        raise UserError(
            f"evaluation.full_metrics=True requires evaluation.suite='emoji', not "
            f"{config.evaluation.suite!r}."
        )
    for field in ("inception_weights", "clip_dir"):
        path = config.evaluation[field]
        if path and not epath.Path(path).exists():
            raise UserError(f"evaluation.{field}={path}: there is no such file or folder.")
    needed = {
        image_set_distance.PACKAGE: image_set_distance,
        caption_metrics.PACKAGE: caption_metrics,
    }
    missing = [name for name, module in needed.items() if module.is_missing()]
    if config.evaluation.full_metrics and missing:
        raise UserError(
            f"evaluation.full_metrics=True needs {' and '.join(missing)}. Run pip install -r "
            "requirements-metrics.txt, or set evaluation.full_metrics=False (not possible in a "
            "comparison)."
        )


def make_suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.EvalSuite:
    """Build the evaluation suite of the configured data set."""
    return _BUILDERS[config.evaluation.suite](config, layout)


def _empty_suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.EvalSuite:
    del config, layout
    return base.EvalSuite((), {})


def _digits_suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.EvalSuite:
    del layout
    train, heldout = (data.open_split(config, split) for split in ("train", "heldout"))
    return digits.make_suite(train, heldout, config.evaluation.num_samples)


def _emoji_suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.EvalSuite:
    settings = emoji_config(config)
    samples, train = config.evaluation.num_samples, data.open_split(config, "train")
    combinations = data.open_split(config, "combinations") if settings.interleaved else ()
    plain = emoji.make_suite(
        settings.load_concepts(),
        train if layout.variable_length else (),
        combinations,
        samples,
        variable_length=layout.variable_length,
    )
    if not config.evaluation.full_metrics:
        return plain
    templates = (
        ()
        if layout.variable_length
        else [layout_template(train[n], layout) for n in range(samples)]
    )
    return full_suite.extend_suite(plain, reference_data(config), templates, samples)


def _emoji_styles_suite(
    config: ml_collections.ConfigDict, layout: layouts.Layout
) -> base.EvalSuite:
    del layout
    settings = emoji_styles_data.Settings(**_source_settings(config))
    return emoji_styles.make_suite(settings.load_drawings(), config.evaluation.num_samples)


_BUILDERS: dict[str, Callable[[ml_collections.ConfigDict, layouts.Layout], base.EvalSuite]] = {
    "": _empty_suite,
    "digits": _digits_suite,
    "emoji": _emoji_suite,
    "emoji_styles": _emoji_styles_suite,
}


def emoji_config(config: ml_collections.ConfigDict) -> emoji_data.Settings:
    """Return the settings of the emoji data set."""
    return emoji_data.Settings(**_source_settings(config))


def _source_settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    return {name: value for name, value in config.source.items() if name != "name"}


def reference_data(config: ml_collections.ConfigDict) -> full_suite.ReferenceData:
    """Return the reference data of the full metrics, with the last training documents as `real`."""
    settings, train = emoji_config(config), data.open_split(config, "train")
    concepts = settings.load_concepts()
    all_concepts = emoji_concepts.load(settings.pixels, None, settings.categories)
    count = len(train)
    return full_suite.ReferenceData(
        concepts=concepts,
        heldout_concepts=[concept for concept in all_concepts if concept.held_out],
        real=[train[count - 1 - n] for n in range(min(count, config.evaluation.num_samples))],
        train_texts=_training_texts(config.data.dir, config.source.to_json()),
        classifier=_image_classifier(config, concepts),
        inception_weights=config.evaluation.inception_weights,
        clip_dir=config.evaluation.clip_dir,
    )


@functools.lru_cache(maxsize=2)
def _training_texts(data_dir: str, source: str) -> tuple[str, ...]:
    """Return the text of all training documents; reading them takes seconds."""
    train = sources.open_dataset(data_dir=data_dir, split="train", **json.loads(source))
    return tuple(train[n].text() for n in range(len(train)))


def layout_template(document: Document, layout: layouts.Layout) -> Document:
    """Replace images by image gaps, and text by text gaps with the same number of slots."""
    parts: list[documents.Part] = []
    for run in documents.group_runs(document.parts):
        if not documents.is_text(run[0]):
            parts.append(Gap("image"))
            continue
        tokens = sum(len(layout.vocab.encode(part.text)) for part in run)
        full_slots = tokens // layout.text_slots * layout.text_slots
        parts += [Gap("text", full_slots)] if full_slots else []
        parts.append(Gap("text"))
    return Document(tuple(parts))


def _image_classifier(
    config: ml_collections.ConfigDict, concepts: Sequence[emoji_concepts.Concept]
) -> interleaved.ImageClassifier:
    """Return the classifier of emoji images, which its first call loads from disk or trains."""
    folder = pathlib.Path(config.data.dir) / "judges"
    mark = image_name_judge.hash_training_data(concepts)
    path = folder / f"{emoji_config(config).name}_{mark}.npz"

    @functools.cache
    def judge() -> image_name_judge.Judge:
        with distributed.primary_first():
            if path.exists():
                return image_name_judge.Judge.load(path)
            logging.info("Training the classifier of emoji images; it is saved to %s.", path)
            trained = image_name_judge.Judge.train(concepts)
            folder.mkdir(parents=True, exist_ok=True)
            trained.save(path)
            return trained

    return lambda images: judge().classify(images)
