"""Tests that the examples of the Python interface's docstrings run and have the stated results."""

import doctest

import numpy as np
import pytest

import oneflow_jax as of
from oneflow_jax.api import document, model, slides
from tests import runs

NAMES = (
    "load", "Model.info", "Model.generate", "Model.generate_batch", "Model.edit", "Model.stream",
    "Model.list_warnings", "text", "image", "Document", "TrajectoryViewer",
)  # fmt: skip


@pytest.fixture(scope="module")
def small_model():
    return of.load(runs.trained_run()[1])


def find_examples():
    """Return the examples of the three modules, by the name of their function or class."""
    finder = doctest.DocTestFinder()
    found = [example for module in (model, document, slides) for example in finder.find(module)]
    return {one.name.split(".", 3)[3]: one for one in found if one.examples}


@pytest.mark.parametrize("name", NAMES)
def test_examples_have_the_stated_results(name, small_model):
    example = find_examples()[name]
    example.globs = {"of": of, "np": np, "model": small_model}
    report = []
    doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert report == []


def test_all_examples_are_tested():
    assert set(find_examples()) == set(NAMES)
