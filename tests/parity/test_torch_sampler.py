"""Parity of examples/torch_sampler.py, in PyTorch, with oneflow_jax: same noise, same document."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from etils import epath

import oneflow_jax as of
from examples import torch_sampler
from oneflow_jax import evaluate
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import prompt
from oneflow_jax.generation.generator import Generator
from oneflow_jax.runtime import workdir
from oneflow_jax.samplers import base, ode

TOLERANCES = {1.0: 1e-4, 8.0: 1e-3}
"""Maximum difference of patches by `text_lead`.

The model was not trained with 8, where each step enlarges rounding errors more, and a busy machine
rounds differently in different runs: 1.2e-4 was measured.
"""

STEPS = 4
SEED = 3
PIXELS = 64  # only for images inside prompts, and there are none
PROMPTS = ("a picture of a tiger: <image>", "<text> <image> and <text> <image>")


@pytest.fixture(scope="module")
def torch_model():
    return torch_sampler.Model(of.PRETRAINED)


@pytest.fixture(scope="module")
def system():
    folder = epath.Path(of.PRETRAINED)
    return system_lib.system(workdir.load_config(folder).lock(), folder, "sample")


@pytest.fixture(scope="module")
def params(system):
    return evaluate.load_ema_params(system, epath.Path(of.PRETRAINED))


@pytest.mark.parametrize("text", PROMPTS)
def test_layout(torch_model, system, text):
    expected = system.layout.prompt_row(prompt.parse(text, PIXELS))
    found = torch_model.lay_out(text)
    for theirs, ours in (("kind", "modality"), ("ids", "ids"), ("position", "position")):
        np.testing.assert_array_equal(found[theirs].numpy(), expected[ours])
    np.testing.assert_array_equal(found["given"].numpy(), expected["is_given"])


@pytest.mark.parametrize("lead", TOLERANCES)
@pytest.mark.parametrize("text", PROMPTS)
def test_samples(torch_model, system, params, monkeypatch, text, lead):
    """Check tokens exactly, patches to `TOLERANCES`, and pixels to one level in 255."""
    monkeypatch.setitem(torch_model.config["paradigm"], "text_lead", lead)
    paradigm = dataclasses.replace(system.paradigm, text_lead=lead)
    grid = system.config.sampling.time_grid
    schedule = ode.make_schedule("euler", STEPS, grid)
    placed = dataclasses.replace(system, paradigm=paradigm)
    run = Generator(placed, params)
    (batch,) = run(
        [prompt.parse(text, PIXELS)],
        base.SamplingPlan(schedule),
        seed=SEED,
        batch=jax.device_count(),
    )

    # The noise of `OneFlow.sample`, for the document with the index 0.
    key = jax.random.fold_in(jax.random.key(SEED), 0)
    shapes = batch.canvas.ids.shape[1], system.config.model.embed_width, paradigm.channels
    drawn = [
        jax.random.normal(each, (shapes[0], width))
        for each, width in zip(jax.random.split(key), shapes[1:], strict=True)
    ]
    slots = torch_model.lay_out(text)
    used = len(slots["ids"])
    noise = tuple(torch.from_numpy(np.array(each[:used])) for each in drawn)
    ids, patches = torch_model.sample(slots, STEPS, noise)
    np.testing.assert_array_equal(ids.numpy(), batch.canvas.ids[0, :used])
    is_image = slots["kind"].numpy() == torch_sampler.IMAGE
    np.testing.assert_allclose(
        patches.numpy()[is_image], batch.canvas.latents[0, :used][is_image], atol=TOLERANCES[lead]
    )
    parts = torch_model.decode(slots, ids, patches)
    (document,) = batch.documents
    assert len(parts) == len(document.parts)
    for found, expected in zip(parts, document.parts, strict=True):
        if isinstance(found, str):
            assert found == expected.text
        else:
            difference = np.abs(np.asarray(found, int) - expected.pixels.astype(int))
            assert difference.max() <= 1


def test_unsupported_models_are_named(torch_model):
    config = torch_model.config | {"paradigm": torch_model.config["paradigm"] | {"name": "dalle"}}
    with pytest.raises(ValueError, match=r"paradigm\.name='dalle'"):
        torch_sampler.check_supported(config)
    network = torch_model.config["model"] | {"activation": "gelu_tanh"}
    with pytest.raises(ValueError, match=r"model\.activation='gelu_tanh'"):
        torch_sampler.check_supported(torch_model.config | {"model": network})
