"""Tests of losses of single documents and of shuffled gains."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax import evaluate
from oneflow_jax.build import document_losses as builder
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import toy
from oneflow_jax.data.document import Document, Text
from oneflow_jax.runtime import sharding
from oneflow_jax.training import document_losses
from tests import runs

NUM_DOCUMENTS = 12
"""More than a batch of 8 rows, so that the last batch has surplus rows."""


@functools.cache
def make_system():
    _, folder = runs.trained_run()
    config = runs.make_config(evaluation__loss_documents=NUM_DOCUMENTS)
    return system_lib.system(config, folder), folder


@functools.cache
def measure():
    """Return the losses of parameters that make the heads depend on all inputs."""
    system, folder = make_system()
    params = jax.tree.map(lambda x: x + 0.05, evaluate.load_ema_params(system, folder))
    with sharding.mesh_context(system.mesh):
        return params, system.document_losses(), system.document_losses()(params)


def test_each_document_has_losses_of_its_own():
    _, _, (scalars, by_document) = measure()
    assert set(by_document) == {"text_train", "image_train", "text_heldout", "image_heldout"}
    for name, losses in by_document.items():
        assert len(losses) == NUM_DOCUMENTS
        assert len(set(losses)) > 1
        assert scalars[f"eval/document_loss_{name}"] == pytest.approx(np.nanmean(losses), rel=1e-4)
    for split in ("train", "heldout"):
        assert 0 < scalars[document_losses.count_name(split)] <= NUM_DOCUMENTS


def test_equal_parameters_have_equal_losses():
    params, losses, expected = measure()
    system, _ = make_system()
    with sharding.mesh_context(system.mesh):
        assert losses(params) == expected


def test_gains_are_those_of_the_exchanged_conditions():
    """Replace the exchanged documents by the originals: all gains are then undefined."""
    params, losses, (scalars, _) = measure()
    for term in ("text", "image"):
        for split in ("train", "heldout"):
            names = document_losses.shuffled_gain_names(term, split)
            value, low, high = (scalars[name] for name in names)
            assert low <= value <= high
            assert f"eval/conditional_loss_{term}_{split}" in scalars
    system, _ = make_system()
    same = {
        split: dataclasses.replace(
            rows, other_texts=rows.originals, other_images=rows.originals
        )
        for split, rows in losses._splits.items()
    }  # fmt: skip
    unchanged = document_losses.DocumentLosses(same, system.model, system.paradigm, 2, 0)
    with sharding.mesh_context(system.mesh):
        without, _ = unchanged(params)
    assert not any("gain" in name for name in without)


def test_rows_are_as_short_as_the_documents_and_have_the_right_parts():
    system, _ = make_system()
    layout = dataclasses.replace(system.layout, length=128)
    rows = builder.make_rows(system.config, layout, system.batch_sharding)["heldout"]
    canvas = rows.originals.canvases[0]
    assert canvas.ids.shape[1] < layout.length
    assert rows.documents.count == NUM_DOCUMENTS
    other = rows.other_texts.canvases[0]
    np.testing.assert_allclose(canvas.latents.sum((1, 2)), other.latents.sum((1, 2)), atol=1e-4)
    assert jnp.any(canvas.ids != other.ids)
    other = rows.other_images.canvases[0]
    np.testing.assert_array_equal(canvas.ids, other.ids)
    assert jnp.any(canvas.latents != other.latents)


def test_only_documents_with_text_and_images_are_selected():
    documents = list(toy.Toy(documents=40))
    text_only = Document((Text("red"),))
    chosen = builder.select([*documents, *[text_only] * 40], 20)
    assert len(chosen) == 20
    assert all(one.text() and one.images() for one in chosen)
    assert builder.select([text_only] * 3, 2) == builder.select([], 2) == []


def test_runs_without_loss_documents_have_none():
    system, _ = runs.trained_run()
    assert system.document_losses() is None


def test_captions_and_images_of_the_data_are_compared(monkeypatch):
    documents = toy.Toy(documents=80, interleaved=0.0)
    monkeypatch.setattr(builder.data, "open_split", lambda config, split: documents)
    match = builder.measure_caption_match(runs.make_config())
    assert match["reference_caption_match"] > match["reference_caption_match_chance"] > 0.5
    monkeypatch.setattr(builder.data, "open_split", lambda config, split: toy.Toy(documents=3))
    assert builder.measure_caption_match(runs.make_config()) == {}
