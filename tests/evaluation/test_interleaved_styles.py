"""Tests of the metrics of interleaved documents whose text names styles."""

import pytest

from oneflow_jax.data import emoji_styles as styles_data
from oneflow_jax.data import sources
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.evaluation import interleaved
from oneflow_jax.evaluation.nearest_image import NearestImage
from tests.data import small_style_packages


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    folder = small_style_packages.write(tmp_path_factory.mktemp("packages"))
    settings = styles_data.Settings(
        path=str(folder), concepts=20, styles=small_style_packages.STYLES, min_styles=3, pixels=16
    )
    return settings.load_drawings()


def score_styled(drawings, text, *shown):
    by_label = {drawing.label: drawing.pixels for drawing in drawings}
    document = Document((Text(text), *(Image(by_label[label]) for label in shown)))
    return interleaved.score_documents([document], drawings, NearestImage.from_images(drawings))[0]


@pytest.mark.parametrize(
    ("text", "num_aligned", "is_template"),
    [
        ("a fox and an owl", 2, True),
        ("a noto fox and a twemoji owl", 2, True),
        ("a noto fox and a noto owl", 1, True),
        ("a twemoji fox and a noto owl", 0, True),
        ("an owl and a fox", 1, True),
        ("a noto fox and an owl", 1, False),  # In a template, all names have a style, or none has.
    ],
)
def test_styles_are_compared_where_the_text_names_them(drawings, text, num_aligned, is_template):
    score = score_styled(drawings, text, "noto fox", "twemoji owl")
    assert score.shown == ("noto fox", "twemoji owl")
    assert score.num_aligned == num_aligned
    assert score.order_correct == (num_aligned == 2)
    assert score.category_consistent
    assert (score.template is not None) == is_template


@pytest.mark.parametrize(
    ("text", "is_template"),
    [
        ("this is a lion, tagged mane and roar", True),
        ("a picture of a noto lion, tagged roar and mane:", True),
        ("this is a lion, tagged sly and clever", False),
        ("two animals: a lion and a fox, tagged mane and roar", False),
    ],
)
def test_keywords_are_no_names_and_must_be_true(drawings, text, is_template):
    score = score_styled(drawings, text, "noto lion")
    assert score.num_aligned == 1
    assert (score.template is not None) == is_template


def test_real_documents_in_styles_are_right(drawings, tmp_path):
    folder = small_style_packages.write(tmp_path / "packages")
    settings = {
        "path": str(folder), "concepts": 20, "styles": small_style_packages.STYLES,
        "min_styles": 3, "pixels": 16, "documents": 100, "held_out_documents": 10, "keywords": 0.9,
    }  # fmt: skip
    documents = [*sources.open_dataset("emoji_styles", tmp_path, "train", **settings)]
    bounds = interleaved.compute_bounds(documents, drawings, NearestImage.from_images(drawings))
    assert set(bounds["upper"].values()) == {1.0}
    assert bounds["lower"]["interleaved_score"] < 0.5
