"""How likely held-out words are: of which documents, divided by what, and for whom at all."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax import likelihood as likelihoods
from oneflow_jax.paradigms import likelihood as words
from tests import runs, tiny
from tests.paradigms import test_mask_flow, test_transfusion

FLOWS = {"mask_flow": test_mask_flow.paradigm(), "transfusion": test_transfusion.paradigm()}


class Batches:
    """The same batch again and again; knows how often it was asked."""

    def __init__(self):
        self.asked = 0

    def __iter__(self):
        for self.asked in itertools.count(1):
            yield tiny.packed()


def made(name, times, batches=None):
    flow = FLOWS[name]
    model = tiny.network(flow.heads)
    scorer = words.scorer(flow)
    found = likelihoods.Likelihood(batches or Batches(), model, scorer, times, seed=0)
    return found, tiny.parameters(model)


def without_opinion(params):
    """All tokens are equally likely everywhere."""
    changed = {
        name: jax.tree.map(jnp.zeros_like, part) if "logits" in name else part
        for name, part in params.items()
    }
    assert any("logits" in name for name in params)
    return changed


@pytest.mark.parametrize(
    ("name", "times", "rtol"), [("transfusion", 1, 1e-5), ("mask_flow", 64, 0.05)]
)
def test_without_opinion_each_word_costs_the_log_of_the_vocabulary(name, times, rtol):
    likelihood, params = made(name, times)
    canvas = tiny.packed()
    documents = np.sum(np.max(canvas.segment, axis=1))
    expected = np.sum(canvas.free & canvas.is_text) * math.log(tiny.VOCAB) / documents
    np.testing.assert_allclose(likelihood(without_opinion(params)), expected, rtol=rtol)


def test_as_many_batches_as_it_takes(monkeypatch):
    canvas, batches = tiny.packed(), Batches()
    documents = int(np.sum(np.max(canvas.segment, axis=1)))
    monkeypatch.setattr(likelihoods, "DOCUMENTS", 2 * documents + 1)
    likelihood, params = made("mask_flow", 3, batches)
    assert batches.asked == 3
    first = likelihood(params)
    # The same words are hidden otherwise, at other times.
    assert len(set(first)) == 3
    assert likelihood(params) == first


def test_who_has_one():
    system, _ = runs.trained()  # oneflow
    assert system.likelihood() is None
