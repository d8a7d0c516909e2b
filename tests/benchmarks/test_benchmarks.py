"""The benchmarks run, count rightly, and say what they promise; their speeds are not tested."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import codec, flops, paradigms, problem, sample, timing, train_step
from oneflow_jax import canvas as canvases
from oneflow_jax import sharding
from oneflow_jax.samplers import ode

SPREAD = {"median", "low", "high"}


def test_train_step_writes_its_figures(tmp_path):
    path = tmp_path / "train.json"
    train_step.main(["--smoke", "--json", str(path)])
    results = json.loads(path.read_text())
    assert {"machine", "sizes", "flops", "compile_seconds", "memory"} < set(results)
    for name in ("seconds", "tokens_per_second", "documents_per_second", "share_of_peak"):
        assert set(results[name]) == SPREAD, name
        assert results[name]["low"] > 0, name
    slots = results["sizes"]["text"] + results["sizes"]["image"]
    ratio = results["tokens_per_second"]["median"] / results["documents_per_second"]["median"]
    assert ratio == pytest.approx(slots)
    assert results["memory"]["arguments_mib"] * 2**20 > 4 * 4 * results["parameters"]


def test_sample_writes_its_cases(tmp_path):
    path = tmp_path / "sample.json"
    sample.main(["--smoke", "--batch", "1", "--nfe", "2", "--json", str(path)])
    results = json.loads(path.read_text())
    assert [(case["batch"], case["nfe"]) for case in results["cases"]] == [(1, 2)]
    for case in results["cases"]:
        assert set(case["seconds_per_document"]) == set(case["overhead"]) == SPREAD
        assert case["compile_seconds"] > 0


def test_paradigms_writes_a_case_for_each(tmp_path):
    path = tmp_path / "paradigms.json"
    paradigms.main(["--smoke", "--nfe", "2", "--json", str(path)])
    cases = json.loads(path.read_text())["cases"]
    assert list(cases) == list(paradigms.NAMES)
    assert cases["oneflow"]["ratio"] == {"median": 1, "low": 1, "high": 1}
    for case in cases.values():
        assert case["seconds_per_pass"]["low"] > 0


def test_codec_measures_ours_alone_without_torch(tmp_path, monkeypatch, capsys):
    path = tmp_path / "codec.json"
    monkeypatch.setattr(codec, "torch", None)
    codec.main(["--smoke", "--batch", "2", "--json", str(path)])
    assert "only ours is measured" in capsys.readouterr().out
    (case,) = json.loads(path.read_text())["cases"]
    assert (case["size"], case["batch"], case["ours_over"]) == ("tiny", 2, {})
    assert set(case["pictures_per_second"]) == {"ours encode", "ours decode"}
    for rate in case["pictures_per_second"].values():
        assert set(rate) == SPREAD
        assert rate["low"] > 0


def test_bare_loop_makes_the_same_documents():
    """It would be no measure of diffrax's overhead if it did less."""
    state = {"a": np.float32([1.0, -2.0])}
    plan = ode.schedule("euler", 5)

    def velocity(t, x):
        return {"a": t - x["a"]}

    expected = ode.solve(velocity, state, plan).last["a"]
    np.testing.assert_allclose(sample.bare(velocity, state, plan).last["a"], expected, rtol=1e-6)


def counted(sizes: problem.Sizes) -> tuple[float, float]:
    """XLA's counts of the forward pass and of it with its gradient, in straight-line code."""
    task = problem.Problem(sizes)
    canvas = task.canvas(sizes.batch)
    with sharding.use(problem.mesh()):
        params = jax.eval_shape(task.state).params
        embeds = jax.ShapeDtypeStruct((*canvas.ids.shape, sizes.embed), jnp.float32)

        def total(params, embeds):
            clock = jnp.ones(canvas.ids.shape)
            view = canvases.view(canvas, embeds, canvas.latents, clock)
            outputs = task.model.apply({"params": params}, view)
            # Squares: the gradient of a plain sum would not need the heads' forward pass.
            return sum(jnp.sum(output**2) for output in outputs.values())

        return tuple(
            jax.jit(function).lower(params, embeds).cost_analysis()["flops"]
            for function in (total, jax.grad(total, argnums=(0, 1)))
        )


@pytest.mark.parametrize("text", [48, 240])
def test_flops_are_those_that_xla_counts(text):
    # Layers enough for a wrong layer to show, width enough for the rest (norms, softmax) not to.
    sizes = problem.Sizes(layers=2, unroll=2, text=text, image=16, batch=2)
    forward, train = counted(sizes)
    # XLA also counts norms, softmax and the like: a little more, never less.
    assert 1 < forward / flops.forward(sizes, 2) < 1.01
    assert 1 < train / flops.train(sizes, 2) < 1.01


def test_peak_is_that_of_the_fastest_product():
    seconds = {"step": [9.0, 9.0], "matmul_10": [1.0, 2.0], "matmul_100": [10.0, 5.0]}
    assert timing.peaks(seconds) == [2e6 / 10, 2e6 / 5]


def test_rounds_are_interleaved():
    order = []
    contestants = {name: functools.partial(order.append, name) for name in "ab"}
    seconds = timing.interleaved(contestants, 2)
    assert order == ["a", "b"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
