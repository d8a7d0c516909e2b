"""Tests that few programs are compiled: values of options are arguments, and sizes are rounded."""

import functools

import jax
import numpy as np
import pytest
from etils import epath

import oneflow_jax as of
from oneflow_jax.generation import generator as generation
from oneflow_jax.generation import sampler as samplers
from oneflow_jax.generation.generator import Generator
from oneflow_jax.runtime import programs
from tests import runs

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
IMAGES = (1, 2, 3, 4)


@pytest.fixture
def compiled():
    """Return a list that gets one entry for each program that XLA compiles or JAX loads."""
    events = []

    def record(event, _, **__):
        if event == COMPILE_EVENT:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(record)
    yield events
    jax.monitoring.unregister_event_duration_listener(record)


def request(model, rng, images=None, samples=None, is_guided=None):
    """Make a request; arguments that are None are random."""
    images = images or int(rng.choice(IMAGES))
    samples = samples or int(rng.integers(1, 17))
    is_guided = rng.random() < 0.5 if is_guided is None else is_guided
    scales = rng.uniform(1.1, 5, 2) if is_guided else (1.0, 1.0)
    options = {
        "image_guidance_scale": float(scales[0]),
        "text_guidance_scale": float(scales[1]),
        "seed": int(rng.integers(2**31)),
        "steps": int(rng.integers(1, 6)),
    }
    parts = [("red", of.IMAGE), (of.TEXT, of.IMAGE), (of.text(2), of.IMAGE)]
    prompt = [part for _ in range(images) for part in parts[rng.integers(3)]]
    model.generate(prompt, samples=samples, **options)


def edit(model, rng, images):
    picture = rng.integers(0, 256, (4, 4, 3), np.uint8)
    model.edit(of.Document(["red", picture] * images), start=float(rng.uniform(0.1, 0.9)))


def test_random_requests_compile_nothing_after_the_warm_up(compiled):
    folder = runs.trained_run()[1]
    model = of.load(folder, {"sampling.steps": 2, "evaluation.batch_size": 16})
    generation.PROGRAMS.clear()
    rng = np.random.default_rng(0)
    for images in IMAGES:
        for samples in (1, 9):
            for is_guided in (False, True):
                request(model, rng, images, samples, is_guided)
        edit(model, rng, images)
    assert 0 < model.num_compilations <= 20
    assert len(compiled) >= model.num_compilations
    warm = model.num_compilations, len(compiled)
    for number in range(60):
        if number % 5:
            request(model, rng)
        else:
            edit(model, rng, int(rng.choice(IMAGES)))
    assert (model.num_compilations, len(compiled)) == warm


def test_models_share_programs():
    folder = runs.trained_run()[1]
    first, second = (of.load(folder, {"sampling.steps": 2}) for _ in range(2))
    generation.PROGRAMS.clear()
    assert first.generate("red <image>") == second.generate("red <image>")
    assert (first.num_compilations, second.num_compilations) == (1, 0)


def make_constant_programs(generator, inputs):
    """Return programs in which the plan's values are constants."""
    *_, plan = inputs
    parts = {"model": generator.system.model, "paradigm": generator.system.paradigm}
    make_sampler = functools.partial(samplers.make_sampler, **parts)
    return programs.SamplerPrograms(lambda *arrays: make_sampler(*arrays[:-1], plan))


KINDS = [
    ("oneflow", {"solver": "heun"}, {"text_guidance_scale": 0.7}),
    ("mask_flow", {"temperature": 0.7, "top_p": 0.8, "remask_prob": 0.2}, {"top_k": 9}),
    ("edit_flow", {"temperature": 0.7, "time_grid": "cosine"}, {"text_guidance_scale": 0.7}),
    ("transfusion", {"temperature": 0.7, "solver": "midpoint"}, {"top_p": 0.9}),
    ("chameleon", {"temperature": 0.7, "top_k": 5}, {"top_p": 0.9}),
]


@pytest.mark.parametrize(("kind", "options", "more"), KINDS)
def test_documents_are_those_of_programs_with_constants(kind, options, more, tmp_path, monkeypatch):
    model = runs.make_untrained_model(kind, epath.Path(tmp_path))
    options = options | more | {"steps": 3, "image_guidance_scale": 1.5}
    prompt = ["red", of.IMAGE, of.TEXT]
    documents = model.generate(prompt, samples=4, **options)
    monkeypatch.setattr(Generator, "_programs", make_constant_programs)
    for document, constant in zip(
        documents, model.generate(prompt, samples=4, **options), strict=True
    ):
        assert document.text == constant.text
        assert document.nfe == constant.nfe
        for image, other in zip(document.images, constant.images, strict=True):
            difference = np.asarray(image, int) - np.asarray(other, int)
            assert np.abs(difference).max() <= 1
