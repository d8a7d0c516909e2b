"""How likely held-out words are: of which documents, divided by what, and for whom at all."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax import likelihood as likelihoods
from oneflow_jax.paradigms import scorers
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


def made(name, batches=None):
    flow = FLOWS[name]
    model = tiny.network(flow.heads)
    found = likelihoods.Likelihood(batches or Batches(), model, scorers.scorer(flow), seed=0)
    return found, tiny.parameters(model)


def without_opinion(params):
    """All tokens are equally likely everywhere."""
    changed = {
        name: jax.tree.map(jnp.zeros_like, part) if "logits" in name else part
        for name, part in params.items()
    }
    assert any("logits" in name for name in params)
    return changed


def documents_of(canvas):
    return int(np.sum(np.max(canvas.segment, axis=1)))


@pytest.mark.parametrize(("name", "rtol"), [("transfusion", 1e-5), ("mask_flow", 0.05)])
def test_without_opinion_each_word_costs_the_log_of_the_vocabulary(name, rtol):
    likelihood, params = made(name)
    canvas = tiny.packed()
    words = np.sum(canvas.free & canvas.is_text)
    found = likelihood(without_opinion(params)).mean()
    expected = words * math.log(tiny.VOCAB) / documents_of(canvas)
    np.testing.assert_allclose(found, expected, rtol=rtol)


def test_as_many_batches_as_it_takes(monkeypatch):
    batches, documents = Batches(), documents_of(tiny.packed())
    monkeypatch.setattr(likelihoods, "DOCUMENTS", 2 * documents + 1)
    likelihood, params = made("mask_flow", batches)
    assert batches.asked == 3
    first = likelihood(params)
    # The same words are hidden otherwise, at other times.
    assert len(set(first.total)) == 3
    assert first.documents == [documents] * 3
    assert likelihood(params) == first


def test_documents_count_alike_whatever_their_batch():
    nats = likelihoods.Nats([10.0, 2.0], [4, 2])
    assert nats.mean() == 2.0
    assert nats.mean([1, 1]) == 1.0


def test_who_has_one():
    system, _ = runs.trained()  # oneflow
    assert system.likelihood() is None
