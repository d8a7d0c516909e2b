"""Tests of the prompts that the evaluation of a user's own data makes from documents."""

import dataclasses

import pytest

from oneflow_jax.build import data, evaluation, own_suite
from oneflow_jax.data import toy
from oneflow_jax.data.document import Document, Gap, Image, Text
from tests import runs, tiny

LAYOUT = tiny.make_layout(length=64)


def first():
    return tiny.captions(1)[0]


def test_prompts_have_gaps_with_the_slots_of_the_document():
    document = first()
    row = LAYOUT.row(document)
    example = own_suite.make_example(document, LAYOUT)
    for prompt, kind in ((example.image_prompt, Image), (example.text_prompt, Text)):
        gaps = [part for part in prompt.parts if isinstance(part, Gap)]
        assert gaps
        assert not any(isinstance(part, kind) for part in prompt.parts)
        prompt_row = LAYOUT.prompt_row(prompt)
        assert prompt_row["modality"].tolist() == row["modality"].tolist()
    assert sum(part.images() != () for part in [example.text_prompt, example.image_prompt]) == 1


def test_models_that_choose_the_length_get_gaps_of_any_length():
    layout = dataclasses.replace(LAYOUT, text_slots=0)
    prompt = own_suite.replace_by_gaps(first(), "text", layout)
    assert Gap("text") in prompt.parts


def test_documents_that_cannot_be_prompts_are_left_out():
    pixels = first().images()[0]
    long = Document((Text("red " * 80), Image(pixels)))
    unknown = Document((Text("☃ red"), Image(pixels)))
    assert own_suite.make_example(long, LAYOUT) is None
    assert own_suite.make_example(unknown, LAYOUT) is None


def test_the_suite_has_tasks_for_both_splits(monkeypatch):
    monkeypatch.setattr(data, "open_split", lambda config, split: toy.Toy(documents=30))
    config = runs.make_config(evaluation__suite="own", evaluation__num_samples=4)
    tasks = {task.name: task for task in evaluation.make_suite(config, LAYOUT).tasks}
    assert {f"{kind}_{split}" for kind in ("text_to_image", "image_to_text")
            for split in ("heldout", "train")} | {"image_distance"} == set(tasks)  # fmt: skip
    assert len(tasks["text_to_image_heldout"].prompts) == 4


@pytest.mark.parametrize(
    ("name", "has_loss"), [("oneflow", True), ("mask_flow", True), ("edit_flow", False)]
)
def test_the_unigram_loss_needs_a_cross_entropy(name, has_loss, monkeypatch):
    monkeypatch.setattr(data, "open_split", lambda config, split: toy.Toy(documents=8))
    config = runs.make_config(paradigm__name=name, evaluation__num_samples=2)
    metrics = own_suite.make_suite(config, LAYOUT).measure_reference()
    assert ("reference_text_loss_unigram_heldout" in metrics) == has_loss
