"""Tests of building the evaluation suite, and of errors about missing files before training."""

import pytest

from configs import quickstart
from oneflow_jax.build import evaluation
from oneflow_jax.codecs.patches import PatchCodec
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import vocab
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import image_set_distance
from tests.build.test_autoencoder_system import without_packages  # noqa: F401 - a fixture


def config(**changes):
    settings = quickstart.get_config()
    settings.source.concepts = 16
    settings.source.documents = 64
    settings.evaluation.num_samples = 8
    settings.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return settings.lock()


@pytest.fixture(scope="module")
def layout():
    forms = ["a picture of {}:", "three animals: first {}, then {}, last {}", "this here is {} and"]
    names = [concept.name for concept in concepts()]
    words = (form.format(*[name] * 3) for form in forms for name in names)
    codec = PatchCodec(pixels=24, patch_size=8, image_channels=3, mean=0.0, std=1.0)
    return layouts.Layout(vocab.train_sentencepiece(words, 128), codec, length=96, text_slots=6)


def test_layout_template_has_the_slots_of_its_document(layout):
    pixels = concepts()[0].pixels
    for words in ("a fox", "a picture of a fox: a fox", "three animals: a fox and an owl"):
        document = Document((Text(words), Image(pixels), Text("a fox"), Image(pixels)))
        bare = evaluation.layout_template(document, layout)
        assert all(isinstance(part, Gap) for part in bare.parts)
        row, prompt_row = layout.row(document), layout.prompt_row(bare)
        for name in ("modality", "position", "span"):
            assert row[name].tolist() == prompt_row[name].tolist(), name
        assert prompt_row["is_given"].tolist() == (prompt_row["position"][:, 0] == 0).tolist()


def concepts():
    return evaluation.emoji_config(config()).load_concepts()


def test_full_metrics_add_the_document_and_unseen_tasks(layout, tmp_path):
    plain = evaluation.make_suite(config(data__dir=str(tmp_path)), layout)
    whole = evaluation.make_suite(
        config(data__dir=str(tmp_path), evaluation__full_metrics=True), layout
    )
    more = {task.name for task in whole.tasks} - {task.name for task in plain.tasks}
    assert more == {"document", "unseen"}
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
