"""Builders of evaluation suites from a configuration; the package `evaluation` has the metrics."""

import functools
import json
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from etils import epath

from oneflow_jax.build import data, own_suite, paradigms
from oneflow_jax.data import emoji as emoji_data
from oneflow_jax.data import emoji_styles as emoji_styles_data
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import sources
from oneflow_jax.data.labels import LabeledImage
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
from oneflow_jax.evaluation.nearest_image import NearestImage
from oneflow_jax.runtime import distributed


def validate(config: ml_collections.ConfigDict) -> None:
    """Check the settings of evaluation, so that their errors appear before training.

    Raises:
        UserError: the suite is unknown, or its files or packages are missing.
    """
    paradigms.choose("evaluation.suite", config.evaluation.suite, _BUILDERS)
    suite = config.evaluation.suite
    if suite not in ("", config.source.name):
        raise UserError(
            f"evaluation.suite={suite!r}: these metrics are for the data set {suite!r}, not for "
            f"source.name={config.source.name!r}. Give equal names, or evaluation.suite=''."
        )
    if config.evaluation.full_metrics and suite not in FULL_METRICS_SUITES:
        raise UserError(
            f"evaluation.full_metrics=True requires evaluation.suite to be one of "
            f"{', '.join(FULL_METRICS_SUITES)}, not {suite!r}."
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
    return base.EvalSuite(())


def _digits_suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.EvalSuite:
    del layout
    train, heldout = (data.open_split(config, split) for split in ("train", "heldout"))
    return digits.make_suite(train, heldout, config.evaluation.num_samples)


def _emoji_suite(config: ml_collections.ConfigDict, layout: layouts.Layout) -> base.EvalSuite:
    del layout
    interleaved_fraction = emoji_data.Settings(**_read_settings(config)).interleaved
    suite = emoji.make_suite(
        _load_images(config),
        data.open_split(config, "train"),
        data.open_split(config, "combinations") if interleaved_fraction else (),
        config.evaluation.num_samples,
    )
    return _extend_suite(config, suite)


def _emoji_styles_suite(
    config: ml_collections.ConfigDict, layout: layouts.Layout
) -> base.EvalSuite:
    del layout
    drawings = _load_images(config)
    suite = emoji_styles.make_suite(
        drawings,
        NearestImage.from_images(drawings),
        data.open_split(config, "train"),
        config.evaluation.num_samples,
    )
    return _extend_suite(config, suite)


def _extend_suite(config: ml_collections.ConfigDict, suite: base.EvalSuite) -> base.EvalSuite:
    """Add the full metrics to a suite if the configuration asks for them."""
    if not config.evaluation.full_metrics:
        return suite
    return full_suite.extend_suite(suite, reference_data(config), config.evaluation.num_samples)


_BUILDERS: dict[str, Callable[[ml_collections.ConfigDict, layouts.Layout], base.EvalSuite]] = {
    "": _empty_suite,
    "digits": _digits_suite,
    "emoji": _emoji_suite,
    "emoji_styles": _emoji_styles_suite,
    "own": own_suite.make_suite,
}

FULL_METRICS_SUITES = ("emoji", "emoji_styles", "own")
"""Suites that have more metrics; those of labeled images are in `full_suite`."""


def reference_data(config: ml_collections.ConfigDict) -> full_suite.ReferenceData:
    """Return the data that full metrics compare with; `real` has the last training documents."""
    train, images = data.open_split(config, "train"), _load_images(config)
    all_images = _load_images(config, concepts=None)
    trained_names = {image.name for image in all_images if image.in_training}
    count = len(train)
    judge = _make_judge(config, images)
    # With styles, images are classified by the nearest drawing. The judge was not trained on
    # drawings of held-out (name, style) pairs, and is less reliable there (docs/emoji_styles.md).
    has_styles = config.evaluation.suite == "emoji_styles"
    return full_suite.ReferenceData(
        images=images,
        heldout_images=[image for image in all_images if image.name not in trained_names],
        real=[train[count - 1 - n] for n in range(min(count, config.evaluation.num_samples))],
        train_texts=_training_texts(config.data.dir, config.source.to_json()),
        classifier=NearestImage.from_images(images) if has_styles else judge,
        judge=judge,
        inception_weights=config.evaluation.inception_weights,
        clip_dir=config.evaluation.clip_dir,
    )


def _load_images(config: ml_collections.ConfigDict, **changes: object) -> tuple[LabeledImage, ...]:
    """Return all labeled images of the data set; `changes` replace some of its settings."""
    return _render_images(config.source.name, json.dumps(_read_settings(config) | changes))


@functools.lru_cache(maxsize=4)
def _render_images(name: str, settings: str) -> tuple[LabeledImage, ...]:
    """Render the images of a data set; the result is cached, because rendering takes seconds."""
    if name == "emoji":
        return emoji_data.Settings(**json.loads(settings)).load_concepts()
    return emoji_styles_data.Settings(**json.loads(settings)).load_drawings()


def _read_settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return the settings of the configured data set: `config.source` without its name."""
    source = json.loads(config.source.to_json())
    return {name: value for name, value in source.items() if name != "name"}


@functools.lru_cache(maxsize=2)
def _training_texts(data_dir: str, source: str) -> tuple[str, ...]:
    """Return the text of all training documents; cached, because reading them takes seconds."""
    train = sources.open_dataset(data_dir=data_dir, split="train", **json.loads(source))
    return tuple(train[n].text() for n in range(len(train)))


def _make_judge(
    config: ml_collections.ConfigDict, images: Sequence[LabeledImage]
) -> interleaved.ImageClassifier:
    """Return a function that classifies images; its first call loads or trains the classifier.

    The classifier is trained on all images except those of held-out pairs of a name and a style.
    The name of its file contains a hash of the images, so each set of images has its own file.
    """
    trained_names = {image.name for image in images if image.in_training}
    pairs = [i.label for i in images if not i.in_training and i.name in trained_names]
    known = [image for image in images if image.label not in pairs]
    folder = pathlib.Path(config.data.dir) / "judges"
    mark = image_name_judge.hash_training_data(images)
    path = folder / f"{config.source.name}-{mark}.npz"

    @functools.cache
    def judge() -> image_name_judge.Judge:
        with distributed.primary_first():
            if path.exists():
                return image_name_judge.Judge.load(path)
            logging.info("Training the classifier of emoji images; it is saved to %s.", path)
            trained = image_name_judge.Judge.train(known, more_labels=pairs)
            folder.mkdir(parents=True, exist_ok=True)
            trained.save(path)
            return trained

    return lambda images: judge().classify(images)
