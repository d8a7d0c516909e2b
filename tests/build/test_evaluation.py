"""Tests of building the suite, and that wrong values and missing files are reported early."""

import pytest

from configs import emoji_styles as emoji_styles_config
from configs import quickstart
from oneflow_jax.build import evaluation
from oneflow_jax.codecs.patches import PatchCodec
from oneflow_jax.data import emoji, emoji_styles, vocab
from oneflow_jax.data import layout as layouts
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import image_name_judge, image_set_distance
from tests.build.test_autoencoder_system import without_packages  # noqa: F401 - a fixture
from tests.data import small_style_packages


def config(**changes):
    settings = quickstart.get_config()
    settings.source.concepts = 16
    settings.source.documents = 64
    settings.evaluation.num_samples = 8
    settings.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return settings.lock()


SMALL_STYLES = {"styles": small_style_packages.STYLES, "min_styles": 3, "concepts": 16}


def styles_config(folder):
    settings = emoji_styles_config.get_config()
    settings.source.update(SMALL_STYLES)
    settings.source.path = str(small_style_packages.write(folder / "packages"))
    settings.source.documents = settings.source.held_out_documents = 16
    settings.evaluation.num_samples = 8
    settings.data.dir = str(folder)
    return settings


@pytest.fixture(scope="module")
def layout():
    forms = ["a picture of {}:", "three animals: first {}, then {}, last {}", "this here is {} and"]
    names = [concept.name for concept in concepts()]
    styles = " ".join(small_style_packages.STYLES)
    words = (form.format(*[f"{styles} {name}"] * 3) for form in forms for name in names)
    codec = PatchCodec(pixels=24, patch_size=8, image_channels=3, mean=0.0, std=1.0)
    return layouts.Layout(vocab.train_sentencepiece(words, 128), codec, length=96, text_slots=6)


def concepts():
    return emoji.Settings(concepts=16).load_concepts()


def test_other_drawings_have_another_judge(tmp_path, monkeypatch):
    trained = []

    class Stub:
        @classmethod
        def train(cls, images, *, more_labels):
            trained.append(({image.label for image in images}, set(more_labels)))
            return cls()

        @classmethod
        def load(cls, path):
            assert path.parent == tmp_path / "judges"
            return cls()

        def save(self, path):
            path.write_text("")

        def classify(self, images):
            return ["noto fox"] * len(images)

    monkeypatch.setattr(image_name_judge, "Judge", Stub)
    settings = styles_config(tmp_path)
    drawings = emoji_styles.Settings(**SMALL_STYLES, path=settings.source.path).load_drawings()
    pairs = {drawing.label for drawing in drawings if drawing.pair_held_out}
    for _ in range(2):  # The second judge is read from the file of the first one.
        assert evaluation.reference_data(settings).judge([None]) == ["noto fox"]
    assert trained == [({drawing.label for drawing in drawings} - pairs, pairs)]
    settings.source.pixels = 16
    evaluation.reference_data(settings).judge([None])
    assert len(trained) == len(list((tmp_path / "judges").iterdir())) == 2


def test_all_metrics_of_emoji_in_styles(layout, tmp_path):
    settings = styles_config(tmp_path)
    suites = []
    for full in (False, True):
        settings.evaluation.full_metrics = full
        evaluation.validate(settings)
        suites.append({task.name: task for task in evaluation.make_suite(settings, layout).tasks})
    plain, whole = suites
    assert {"styled", "composition"} <= set(plain)
    assert set(whole) - set(plain) == {"unseen"}
    reference = evaluation.reference_data(settings)
    names = {image.name for image in reference.train_images}
    assert not names & {image.name for image in reference.heldout_images}
    assert not names & {image.name for image in reference.unseen_images}
    assert names >= {image.name for image in reference.heldout_pairs}


def test_full_metrics_add_the_task_of_unseen_names(layout, tmp_path):
    plain = evaluation.make_suite(config(data__dir=str(tmp_path)), layout)
    whole = evaluation.make_suite(
        config(data__dir=str(tmp_path), evaluation__full_metrics=True), layout
    )
    more = {task.name for task in whole.tasks} - {task.name for task in plain.tasks}
    assert more == {"unseen"}
    document = next(task for task in whole.tasks if task.name == "document")
    assert len(document.prompts) == 8


@pytest.mark.usefixtures("without_packages")
def test_missing_packages_are_reported():
    assert image_set_distance.is_missing()
    with pytest.raises(UserError, match=r"evaluation.full_metrics=True needs efficientnet.*False"):
        evaluation.validate(config(evaluation__full_metrics=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation__suite": "emoji_styles"}, "evaluation.suite='emoji_styles'.*'emoji'"),
        ({"evaluation__suite": "nothing"}, "evaluation.suite='nothing'"),
        (
            {"evaluation__suite": "", "evaluation__full_metrics": True},
            "evaluation.full_metrics=True",
        ),
        (
            {"evaluation__inception_weights": "/nowhere.pth"},
            "evaluation.inception_weights=/nowhere.pth",
        ),
        ({"evaluation__clip_dir": "/nowhere"}, "evaluation.clip_dir=/nowhere"),
    ],
)
def test_errors_are_reported(changes, message):
    with pytest.raises(UserError, match=message):
        evaluation.validate(config(**changes))
