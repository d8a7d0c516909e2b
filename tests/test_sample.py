import json
import logging
import re

import pytest
from PIL import Image

from oneflow_jax import sample
from oneflow_jax.build import choice_record
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import prompt
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from tests import runs

PROMPTS = ("<text> <image>", "a picture of red: <image>")


@pytest.fixture(scope="module")
def written_page(tmp_path_factory):
    _, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path_factory.mktemp("sample"))
    choice_record.write(folder, "steps", choice_record.Choice(runs.STEPS, "so that it is short"))
    config = runs.make_config(sampling__num_samples=2, sampling__steps=3)
    path = sample.run(system_lib.system(config, folder), folder, PROMPTS)
    return folder, path


def page_data(path):
    text = path.read_text()
    return text, json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


def test_page_has_every_document_and_step(written_page):
    folder, path = written_page
    assert path == folder / workdir.SAMPLES_PAGE
    text, data = page_data(path)
    assert len(data["stories"]) == 4
    assert [story["prompt"] for story in data["stories"]] == [p for p in PROMPTS for _ in "ab"]
    assert all(len(story["frames"]) == 4 for story in data["stories"])
    assert "3 forward passes" in text
    assert "optimizer.learning_rate" in text
    names = {curve["name"] for curve in data["curves"]}
    assert {"training, sum", "training, text", "held-out, text"} <= names
    assert data["baselines"] == []


def test_page_lists_what_the_program_chose_for_the_run(written_page):
    text, _ = page_data(written_page[1])
    assert f"<td>{runs.STEPS}</td><td>so that it is short</td>" in text


def test_film_strip_is_next_to_the_page(written_page):
    folder, _ = written_page
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_prompts_are_checked_before_sampling():
    system, _ = runs.trained_run()
    assert len(sample.parse_prompts(system, PROMPTS)) == 2
    with pytest.raises(UserError, match="no gap"):
        sample.parse_prompts(system, [*PROMPTS, "red"])
    with pytest.raises(UserError, match="empty"):
        sample.parse_prompts(system, [])


def test_unknown_words_are_named_before_parameters_are_loaded(tmp_path, caplog):
    system, _ = runs.trained_run()
    with pytest.raises(UserError, match="checkpoint"):
        sample.run(system, tmp_path, ["a Greeen: <image>"])
    assert "'Greeen:' as 'greeen:'" in caplog.text
    assert "does not know the word 'greeen'" in caplog.text


def test_page_names_the_baseline_of_held_out_texts(tmp_path):
    _, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    metrics = {"reference_text_loss_unigram_heldout": 3.25, "other": 1.0}
    (folder / workdir.EVALUATION).write_text(json.dumps(metrics))
    config = runs.make_config(sampling__num_samples=1, sampling__steps=1)
    path = sample.run(system_lib.system(config, folder), folder, PROMPTS[:1])
    (baseline,) = page_data(path)[1]["baselines"]
    assert baseline == {"name": "held-out, text, by token frequencies", "value": 3.25}


def test_document_to_edit_needs_no_gap():
    system, _ = runs.trained_run()
    assert len(sample.parse_prompts(system, ["a picture of red"], edit=True)) == 1
    with pytest.raises(UserError, match="fill the gap first"):
        sample.parse_prompts(system, ["a picture of red: <image>"], edit=True)
    with pytest.raises(UserError, match="empty"):
        sample.parse_prompts(system, [], edit=True)


def test_edits_are_listed(caplog, tmp_path):
    _, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    config = runs.make_config(sampling__num_samples=2, sampling__steps=3, sampling__edit_start=0.1)
    red = tmp_path / "red.png"
    Image.new("RGB", (4, 4), "red").save(red)
    with caplog.at_level(logging.INFO):
        path = sample.run(
            system_lib.system(config, folder), folder, [f"red red <image:{red}>"], edit=True
        )
    messages = [record.getMessage() for record in caplog.records]
    # At edit_start 0.1 nearly everything is corrupted, so the result differs.
    assert sum("replaced <image>" in line for line in messages) == 2
    _, data = page_data(path)
    assert len(data["stories"]) == 2
    first = data["stories"][0]["frames"][0]
    assert first[0] == 0.1


def test_missing_edits_are_logged(caplog):
    system, _ = runs.trained_run()
    document = prompt.parse("a picture of red:", 4)
    with caplog.at_level(logging.INFO):
        sample._log_edits(system.layout, document, document)
    assert [record.getMessage().strip() for record in caplog.records] == ["nothing changed"]
