"""Tests of the demo's answers: documents as they form, and error messages."""

import html
import math
import re
import shutil

import numpy as np
import PIL.Image
import pytest

from oneflow_jax.data import toy
from oneflow_jax.data.document import Gap
from oneflow_jax.demo import answers
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from tests import runs


@pytest.fixture(scope="module")
def models():
    """Yield the demo's models, with the tiny run in place of the pretrained model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "PRETRAINED", runs.trained_run()[1])
        patch.setattr(answers, "STEP_PAUSE_S", 0.0)
        yield answers.ModelRegistry([])


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "mine.png"
    PIL.Image.fromarray(np.full((4, 4, 3), toy.COLORS["red"], np.uint8)).save(path)
    return str(path)


def collect_states(
    models, text="red <image> and <text>", files=None, steps=2, guidance=1, seed=0, name=None
):
    return list(
        answers.stream_html(models, name or models.names[0], text, files, steps, guidance, seed)
    )


def test_every_step_is_shown_and_the_slider_is_last(models):
    loading, making, *steps, last = collect_states(models)
    assert "Loading oneflow: tiny" in loading
    assert "compiles" in making
    assert [float(re.search(r"t = (\d\.\d\d)", step)[1]) for step in steps] == [0, 0.5, 1]
    assert last.count("data-slide ") == 3
    assert "2 forward passes" in last
    assert collect_states(models)[2:-1] == steps
    assert collect_states(models, seed=1)[2:-1] != steps


def test_sliders_of_values_compile_nothing(models):
    model = models[models.names[0]]
    collect_states(models, guidance=2)
    before = model.num_compilations
    for guidance, seed, text in (
        (1.5, 1, "blue <image>"),
        (3.25, 7, "<text> <image>"),
        (5, 9, "<image>"),
    ):
        assert "forward passes" in collect_states(models, text, guidance=guidance, seed=seed)[-1]
    assert model.num_compilations == before
    collect_states(models, steps=3)
    assert model.num_compilations == before


def test_uploaded_image_is_given(models, picture):
    for name in ("mine.png", "1"):
        *_, last = collect_states(models, f"<image:{name}> is <text>", [picture])
        assert "forward passes" in last
        assert last.count("x1 prediction") == 0
    (piece,) = answers.parse_prompt("<image:1>", [picture]).parts
    assert piece.size == (4, 4)


def test_an_escaped_tag_is_text(picture):
    document = answers.parse_prompt(r"1 \< 2 \<image:1> <text>", [picture])
    assert document.parts == ("1 < 2 <image:1>", Gap("text"))
    assert answers.parse_prompt(str(document), []) == document


def test_unknown_letters_and_words_are_warned_of(models):
    *_, last = collect_states(models, "A Red <image> and redd <text>")
    told = html.unescape(last)
    assert "'A' as 'a'" in told
    assert "The nearest known word to 'redd' is 'red'" in told
    assert told.count('role="status"') > 2


MISTAKES = [
    ({"text": " "}, "empty"),
    ({"text": "red"}, "no gap"),
    ({"text": "<imgae>"}, "imgae"),
    ({"text": "<document>"}, "edit_flow"),
    ({"text": "<image:/etc/passwd> <text>"}, "none yet"),
    ({"text": "<image:2> <text>"}, "none yet"),
    ({"text": "<text:300000000>"}, "data.sequence_length"),
    ({"text": "<text:3000000000>"}, "<text:3000000000>"),
    ({"text": "<image>" * 10_000}, "data.sequence_length"),
    ({"text": "red " * 50_000}, "200000 characters"),
    ({"text": "1 < 2 <image>"}, "\\<"),
    ({"steps": 0}, "steps=0"),
    ({"steps": None}, "steps"),
    ({"steps": "many"}, "steps='many'"),
    ({"steps": 2.5}, "steps=2.5"),
    ({"steps": math.nan}, "steps=nan"),
    ({"seed": -1}, "seed"),
    ({"seed": True}, "seed=True"),
    ({"seed": 0.5}, "seed=0.5"),
    ({"guidance": math.nan}, "guidance=nan"),
    ({"guidance": -math.inf}, "guidance=-inf"),
    ({"guidance": "strong"}, "guidance='strong'"),
    ({"guidance": 100}, "guidance"),
    ({"name": "another"}, "oneflow: tiny"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_errors_are_shown_on_the_page(models, arguments, message):
    *_, last = collect_states(models, **arguments)
    assert 'role="alert"' in last
    assert message in html.unescape(last)


def test_invalid_image_is_reported(models, tmp_path):
    path = tmp_path / "words.png"
    path.write_text("<b>words</b>")
    *_, last = collect_states(models, "<image:words.png> <text>", [str(path)])
    assert "cannot be read" in last
    assert "<b>" not in last


def test_runs_are_offered_with_the_shipped_model(models, tmp_path):
    run = runs.trained_run()[1]
    both = answers.ModelRegistry([run])
    assert both.names == ("oneflow: tiny", f"oneflow: tiny, in {run}")
    assert both[both.names[1]].config.name == "tiny"
    fresh = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(fresh / workdir.CHECKPOINTS)
    for folder in (fresh, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=folder.name):
            answers.ModelRegistry([folder])
