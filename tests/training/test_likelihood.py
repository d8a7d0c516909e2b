"""Tests of the held-out text likelihood: its documents, its unit, and which models have one."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.paradigms import likelihood as paradigms_likelihood
from oneflow_jax.training import likelihood as likelihood_lib
from tests import runs, tiny
from tests.paradigms import test_mask_flow, test_transfusion

FLOWS = {"mask_flow": test_mask_flow.paradigm(), "transfusion": test_transfusion.paradigm()}


class Batches:
    """An endless iterator of one batch that counts the requested batches."""

    def __init__(self):
        self.asked = 0

    def __iter__(self):
        for self.asked in itertools.count(1):
            yield tiny.packed_batch()


def make_likelihood(name, batches=None, available=1_000):
    flow = FLOWS[name]
    model = tiny.network(flow.heads)
    bound = paradigms_likelihood.likelihood_bound(flow)
    likelihood = likelihood_lib.Likelihood(
        batches or Batches(), available, model, bound.paradigm, bound.exact, seed=0
    )
    return likelihood, tiny.parameters(model)


def zero_logits(params):
    """Zero the output layer, so that all tokens are equally likely."""
    changed = {
        name: jax.tree.map(jnp.zeros_like, part) if "logits" in name else part
        for name, part in params.items()
    }
    assert any("logits" in name for name in params)
    return changed


def documents_of(canvas):
    return int(np.sum(np.max(canvas.segment, axis=1)))


@pytest.mark.parametrize(("name", "rtol"), [("transfusion", 1e-5), ("mask_flow", 0.05)])
def test_uniform_logits_cost_log_vocab_size_per_token(name, rtol):
    likelihood, params = make_likelihood(name)
    canvas = tiny.packed_batch()
    words = np.sum(canvas.to_generate & canvas.is_text)
    nats = likelihood(zero_logits(params)).mean()
    expected = words * math.log(tiny.VOCAB) / documents_of(canvas)
    np.testing.assert_allclose(nats, expected, rtol=rtol)


@pytest.mark.parametrize(("available", "limit"), [(3, 2), (2, 3)])
def test_each_document_is_scored_once_up_to_the_limit(available, limit, monkeypatch):
    canvas, batches = tiny.packed_batch(), Batches()
    documents, rows = documents_of(canvas), len(canvas.ids)
    monkeypatch.setattr(likelihood_lib, "MAX_DOCUMENTS", limit * documents + 1)
    likelihood, params = make_likelihood("mask_flow", batches, available * documents + 1)
    assert batches.asked == 3
    first = likelihood(params)
    # All batches are equal, but each is scored at other times and with other masks.
    assert len(set(first.total)) == len(first.num_documents) == 2 * rows
    assert sum(first.num_documents) == 2 * documents
    again = likelihood(params)
    np.testing.assert_array_equal(again.total, first.total)


def test_a_batch_larger_than_the_data_set_is_scored():
    likelihood, params = make_likelihood("transfusion", available=1)
    assert sum(likelihood(params).num_documents) == documents_of(tiny.packed_batch())


def test_documents_have_equal_weight_in_any_row():
    nats = likelihood_lib.NatsPerDocument(np.float64([10, 2]), np.int32([4, 2]))
    assert nats.mean() == 2.0
    assert nats.mean(np.int32([1, 1])) == 1.0


def test_oneflow_has_no_likelihood():
    system, _ = runs.trained_run()  # This run's paradigm is oneflow.
    assert system.likelihood() is None
