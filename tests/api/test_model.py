"""Tests of the Python interface: prompts, results, options and error messages."""

import dataclasses
import fcntl
import math
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest
from etils import epath

import oneflow_jax as of
from oneflow_jax import evaluate
from oneflow_jax.api.document import to_internal
from oneflow_jax.build import sampling as sampling_lib
from oneflow_jax.data import document as inner
from oneflow_jax.data import toy
from oneflow_jax.generation import generator as generation
from oneflow_jax.generation.running_batch import RunningBatch
from oneflow_jax.runtime import workdir
from oneflow_jax.viewer import trajectory
from tests import runs

RED = np.full((4, 4, 3), toy.COLORS["red"], np.uint8)


@pytest.fixture(scope="module")
def folder():
    return runs.trained_run()[1]


@pytest.fixture(scope="module")
def model(folder):
    return of.load(str(folder), {"sampling.steps": 2, "evaluation.batch_size": 16})


@pytest.fixture
def traces(model, monkeypatch):
    """Return a list that gets the shape of the canvas each time a program is traced."""
    shapes = []
    kind = type(model._system.paradigm)
    sampler = kind.sampler

    def traced_sampler(self, apply, table, keys, canvas, plan):
        shapes.append(canvas.ids.shape)
        return sampler(self, apply, table, keys, canvas, plan)

    monkeypatch.setattr(kind, "sampler", traced_sampler)
    generation.PROGRAMS.clear()  # Other tests may have compiled the same programs.
    return shapes


def pixels(picture):
    return np.asarray(picture)


def test_the_import_starts_no_accelerator():
    names = "of.IMAGE, of.TEXT, of.DOCUMENT, of.text(3), of.Document, of.Gap, of.UserError"
    code = f"import sys, oneflow_jax as of; {names}; print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=runs.REPOSITORY,
    )
    assert done.stdout.strip() == "False"


def test_loading_a_run_and_reading_its_images_print_no_warnings(folder):
    code = f"""
import numpy as np, oneflow_jax as of
from oneflow_jax.data import document, records
image = document.Image(np.zeros((2, 2, 3), np.uint8))
records.deserialize(records.serialize(document.Document((image,))))
of.load({str(folder)!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=runs.REPOSITORY,
    )
    assert done.stderr == ""


def test_public_names_are_complete():
    assert set(of.__all__) <= set(dir(of))
    assert all(getattr(of, name) is not None for name in of.__all__)
    with pytest.raises(AttributeError, match="laod"):
        _ = of.laod


def test_given_parts_stay_and_gaps_are_filled(model):
    document, second = model.generate("a picture of red: <image> and <text>", samples=2, seed=3)
    assert isinstance(document.parts[0], str)
    assert document.parts[0] == "a picture of red:"
    (picture,) = document.images
    assert (picture.mode, picture.size) == ("RGB", (4, 4))
    assert document.nfe == 2
    assert not document.truncated
    assert document.images != second.images
    (again,) = model.generate("a picture of red: <image> and <text>", seed=3)
    assert again == document
    (unlike,) = model.generate("a picture of red: <image> and <text>", seed=4)
    assert unlike != document
    # Options of one call do not carry over to the next.
    (first,) = model.generate("a picture of red: <image> and <text>")
    assert model.generate("a picture of red: <image> and <text>", seed=0) == [first]
    assert unlike != first


def test_lists_of_parts_equal_prompt_strings(model, tmp_path):
    path = tmp_path / "red.png"
    PIL.Image.fromarray(RED).save(path)
    ways = [
        f"red <image:{path}> <text:3> <image>",
        ["red", RED, of.text(3), of.IMAGE],
        ("red", PIL.Image.fromarray(RED).convert("RGBA"), "<text:3> <image>"),
        of.Document(["red", PIL.Image.open(path), of.text(3), of.IMAGE]),
    ]
    parsed = [to_internal(way, 4) for way in ways]
    for document in parsed:
        assert document.parts[2:] == (inner.Gap("text", 3), inner.Gap("image"))
        np.testing.assert_array_equal(document.parts[1].pixels, RED)
        assert document.parts[0] == inner.Text("red")
    assert to_internal(of.TEXT, 4) == inner.Document((of.TEXT,))


def test_strings_of_a_document_are_literal():
    (part,) = to_internal(of.Document("<image>"), 4).parts
    assert part == inner.Text("<image>")


def test_generate_batch_returns_one_document_per_prompt(model):
    prompts = ["<text> <image>", [RED, of.TEXT], "red <image>"]
    three = model.generate_batch(prompts)
    assert len(three) == 3
    np.testing.assert_array_equal(pixels(three[1].images[0]), RED)
    assert three[2].text == "red"
    assert model.generate_batch(prompts[:1]) == three[:1]
    assert model.generate_batch([]) == []


def test_programs_are_compiled_for_shapes_not_for_prompts(model, traces):
    options = {"image_guidance_scale": 1.5}  # No other test uses this option.
    model.generate("a picture of red: <image>", **options)
    programs = len(traces)
    assert {shape[0] for shape in traces} == {16}
    model.generate("blue <image>", seed=5, **options)
    model.generate_batch(["green <image>", "<image>"], **options)
    model.generate("<image>", samples=16, seed=2, **options)
    assert len(traces) == programs
    model.generate("<text> <image> " * 4, **options)
    assert len(traces) == 2 * programs


def test_the_stream_ends_with_the_document(model):
    prompt = ["blue", of.IMAGE, of.TEXT]
    states = list(model.stream(prompt, seed=7))
    assert [state.t for state in states] == [0.0, 0.5, 1.0]
    (document,) = model.generate(prompt, seed=7)
    assert states[-1].document == document
    assert states[-1].document.nfe == document.nfe == 2
    for state in states:
        assert state.document.text.startswith("blue")
        assert len(state.noisy_images) == len(state.document.images) == 1
        assert 0 < state.confidence < 1
        assert [word.given for word in state.tokens][:1] == [True]
    first, *_, last = states
    assert pixels(first.noisy_images[0]).std() > 10
    assert (pixels(first.noisy_images[0]) != pixels(last.noisy_images[0])).any()
    assert (pixels(first.noisy_images[0]) != pixels(first.document.images[0])).any()
    assert last.noisy_images == document.images


def test_slides_show_every_step_and_begin_with_the_last(model):
    states = list(model.stream("red <image> <text>", seed=7))
    page = of.TrajectoryViewer(states)._repr_html_()
    slides = page.split("data-slide ")[1:]
    assert [re.search(r"t = (\d.\d\d)", slide)[1] for slide in slides] == ["0.00", "0.50", "1.00"]
    assert ["display: none" in slide for slide in slides] == [True, True, False]
    assert 'max="2" value="2"' in page
    odd = trajectory.TextSpan(0, (trajectory.TokenView(0, "<b>", 0.9),), 1.0)
    escaped = of.TrajectoryViewer(
        [dataclasses.replace(states[0], frame=trajectory.Frame(0.5, (odd,)))]
    ).html()
    assert "&lt;b&gt;" in escaped
    assert "<b>" not in escaped
    # Each slide has the noisy image and the x1 prediction; at t = 1 they are equal.
    for slide in slides:
        assert slide.count("data:image/png") == 2
    noisy, expected = re.findall(r"data:image/png;base64,([^\"]+)", slides[0])
    assert noisy != expected
    assert "http" not in page
    with pytest.raises(of.UserError, match="steps is empty"):
        of.TrajectoryViewer([])


def test_stream_raises_errors_at_the_call(model):
    with pytest.raises(of.UserError, match="no gap"):
        model.stream("red")
    with pytest.raises(of.UserError, match="top_p"):
        model.stream("<image>", top_p=0.5)


def test_edit_lists_its_edits(model):
    document = of.Document(["a picture of red:", RED])
    early, late = (model.edit(document, start=start) for start in (0.001, 0.9))
    assert early != late
    assert isinstance(early, of.EditResult)
    assert early.nfe == 2
    # At start=0.001 almost everything is corrupted, and the model is almost untrained.
    gone = [edit.old for edit in early.edits if edit.old]
    assert "<image>" in gone
    assert set(gone) - {"<image>"}
    assert set(gone) <= {*document.text.split(), "<image>"}


OPTIONS = [
    ({"step": 3}, ["step", "steps", "image_guidance_scale"]),
    ({"steps": 0}, ["sampling.steps=0"]),
    ({"steps": 2.5}, ["sampling.steps=2.5"]),
    ({"steps": "many"}, ["sampling.steps", "many"]),
    ({"steps": None}, ["sampling.steps=None", "whole number"]),
    ({"steps": True}, ["sampling.steps=True", "whole number"]),
    ({"steps": 2**64}, ["sampling.steps=18446744073709551616"]),
    ({"steps": math.inf}, ["sampling.steps=inf"]),
    ({"image_guidance_scale": math.nan}, ["sampling.image_guidance_scale=nan"]),
    ({"image_guidance_scale": math.inf}, ["sampling.image_guidance_scale=inf"]),
    ({"image_guidance_scale": -1.0}, ["sampling.image_guidance_scale=-1"]),
    ({"image_guidance_scale": "2"}, ["sampling.image_guidance_scale='2'", "number"]),
    ({"image_guidance_scale": 10**400}, ["sampling.image_guidance_scale=1000"]),
    ({"text_guidance_scale": np.float32("-inf")}, ["sampling.text_guidance_scale=-inf"]),
    ({"temperature": math.nan}, ["sampling.temperature=nan"]),
    ({"top_p": True}, ["sampling.top_p=True"]),
    ({"remask_prob": math.nan}, ["sampling.remask_prob=nan"]),
    ({"solver": None}, ["sampling.solver=None", "heun"]),
    ({"seed": 2**63}, ["seed=9223372036854775808"]),
    ({"seed": 1.5}, ["seed=1.5"]),
    ({"samples": True}, ["samples=True"]),
    ({"samples": 2.0}, ["samples=2.0"]),
    ({"solver": "rk99"}, ["rk99", "heun"]),
    ({"time_grid": "square"}, ["square", "cosine"]),
    ({"temperature": 0.5}, ["temperature", "oneflow"]),
    ({"top_k": -1}, ["top_k"]),
    ({"unmask_order": "backwards"}, ["backwards", "confidence"]),
    ({"seed": -1}, ["seed=-1"]),
    ({"seed": 2**31}, ["seed"]),
    ({"samples": 0}, ["samples=0"]),
    ({"start": 0.5}, ["start"]),
]


@pytest.mark.parametrize(("options", "expected_words"), OPTIONS)
def test_wrong_options(model, options, expected_words):
    with pytest.raises(of.UserError) as error:
        model.generate("<image>", **options)
    assert all(word in str(error.value) for word in expected_words), error.value


PROMPTS = [
    ("red", "no gap"),
    ("", "empty"),
    ([], "empty"),
    (of.Document([]), "empty"),
    (["red", 3], "int"),
    (np.zeros((4, 4)), "uint8"),
    (PIL.Image.new("RGB", (0, 3)), "empty"),
    ("<imgae>", "imgae"),
    ("<text> and words", "text:3"),
    ("<document> red", "last part"),
    ("<image:none.png>", "none.png"),
    ("Ж <image>", "Ж"),
    ("<image> " * 40, "data.sequence_length"),
    ("<text:300000000>", "data.sequence_length"),
    ("<text:3000000000>", "<text:3000000000>"),
    (["red <image>", "blue <image>"], "generate_batch"),
    ([of.Document(["red", of.IMAGE])] * 2, "generate_batch"),
    ([["red", of.IMAGE], ["blue", of.IMAGE]], "generate_batch"),
    ("1 < 2 <image>", r"\\<"),
]


@pytest.mark.parametrize(("prompt", "message"), PROMPTS)
def test_wrong_prompts(model, prompt, message):
    with pytest.raises(of.UserError, match=message):
        model.generate(prompt)


def test_numpy_numbers_are_options(model):
    numbers = {"steps": np.int16(1), "seed": np.uint64(3), "image_guidance_scale": np.float32(1)}
    documents = model.generate("<image>", samples=np.int64(2), **numbers)
    assert len(documents) == 2
    plain = {"steps": 1, "seed": 3, "image_guidance_scale": 1.0}
    assert documents == model.generate("<image>", samples=2, **plain)


def test_letters_are_folded_and_unknown_words_are_warned_of(model, caplog):
    (document,) = model.generate("A Picture of Redd: <image>")
    assert document.text == "a picture of redd:"
    assert "'Picture' as 'picture'" in caplog.text
    assert "'red'" in caplog.text
    warnings = model.list_warnings("A Picture of Redd: <image>")
    assert all(warning in caplog.text for warning in warnings)
    caplog.clear()
    model.generate("A Picture of Redd: <image>")
    assert not caplog.text
    assert model.list_warnings("a picture of red: <image>") == []


def test_unknown_words_are_named_before_sampling(model, monkeypatch, caplog):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(RunningBatch, "advance", fail)
    with pytest.raises(KeyboardInterrupt):
        model.generate("A bluee circl: <image>", steps=1)
    assert caplog.text.count("does not know the word") == 2
    assert "'A' as 'a'" in caplog.text


def test_generate_batch_takes_single_prompts(model):
    with pytest.raises(of.UserError, match="generate_batch"):
        model.generate_batch([["red <image>", "blue <image>"]])
    assert len(model.generate_batch(["red <image>", ["blue", of.IMAGE]])) == 2
    for call in (model.stream, model.edit):
        with pytest.raises(of.UserError, match="generate_batch"):
            call(["red <image>", "blue <image>"])


def test_integers_of_numpy_are_integers(model):
    assert len(model.generate("<image>", samples=np.int64(2))) == 2
    assert of.text(np.int32(3)) == of.text(3)
    for wrong in (True, 2.0, 10**12):
        with pytest.raises(of.UserError, match="samples"):
            model.generate("<image>", samples=wrong)


def test_wrong_calls(model):
    for start in (math.nan, 0, "half"):
        with pytest.raises(of.UserError, match=f"sampling.edit_start={start!r}"):
            model.edit("red", start=start)
    with pytest.raises(of.UserError, match="list of prompts"):
        model.generate_batch("<image>")
    with pytest.raises(of.UserError, match="gap"):
        model.edit("<image>")
    with pytest.raises(of.UserError, match="start"):
        model.edit("red", start=1.0)
    with pytest.raises(of.UserError, match="text: tokens=0"):
        of.text(0)
    with pytest.raises(of.UserError, match="int"):
        of.Document([3])


def test_unreadable_image_is_reported(tmp_path):
    path = tmp_path / "half.png"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(of.UserError, match="cannot be read"):
        to_internal([PIL.Image.open(path), of.TEXT], 4)


def test_documents_have_an_html_representation(tmp_path):
    document = of.Document(["1 < 2 & red", RED, of.text(3)])
    page = document._repr_html_()
    assert "1 &lt; 2 &amp; red" in page
    assert "&lt;text:3&gt;" in page
    assert page.count('src="data:image/png;base64,') == 1
    path = document.save(tmp_path / "new" / "red.html")
    assert page in path.read_text()
    assert "http" not in path.read_text()
    assert str(document) == r"1 \< 2 & red <image:4x4> <text:3>"
    with pytest.raises(of.UserError, match=r"path='red.jpg': .*\.html, \.png, \.md"):
        document.save("red.jpg")
    with pytest.raises(
        of.UserError, match=r"TrajectoryViewer.* writes animations \(\.gif, \.webp\)"
    ):
        document.save("red.gif")
    with pytest.raises(dataclasses.FrozenInstanceError):
        document.parts = ()


def test_configuration_of_a_run_is_its_default(folder):
    loaded = of.load(folder, {"sampling.steps": np.int64(3), "sampling.seed": 4})
    assert loaded.config.sampling.steps == 3
    assert loaded.config.sampling.seed == 4
    assert loaded._system.mesh.shape["data"] == 8
    cut = of.load(folder, {"mesh.data": 4, "mesh.tensor": 2})
    assert cut._system.mesh.shape == {"slices": 1, "data": 4, "fsdp": 1, "context": 1, "tensor": 2}


def test_training_batch_size_need_not_divide_over_devices(folder, tmp_path):
    """Load a run whose batch_size, 6, is not a multiple of the number of devices, 8."""
    copy = runs.copy_run(folder, tmp_path)
    config = workdir.load_config(copy)
    config.batch_size, config.grad_accum_steps, config.evaluation.batch_size = 6, 3, 6
    config.evaluation.nfe, config.sampling.image_guidance_scale = (1,), 2.0
    config.evaluation.full_metrics = True
    workdir.save_config(copy, config)
    before = runs.read_files(copy)
    loaded = of.load(copy)
    assert loaded.config.batch_size == loaded.config.evaluation.batch_size == 8
    assert runs.read_files(copy) == before


FOLDERS = [
    ({"model.width": 64}, ["model.width", "another configuration"]),
    ({"sampling.stpes": 3}, ["sampling.stpes", "configs/common.py"]),
    ({"sampling.steps.more": 3}, ["sampling.steps.more", "configs/common.py"]),
    ({"sampling.steps": "many"}, ["sampling.steps", "many"]),
    ({"sampling": 3}, ["sampling", "3"]),
    ({"sampling": {"steps": 3}}, ["sampling={'steps': 3}", "{'sampling.steps': ...}"]),
    ({3: 3}, ["3=3"]),
    (["steps"], ["config=['steps']"]),
    ({"mesh.data": 3}, ["mesh", "8"]),
    ({"platform": "tpu"}, ["TPU"]),
    ({"platform": "abacus"}, ["platform='abacus'", "tpu"]),
    ({"model.dtype": "float31"}, ["model.dtype='float31'", "bfloat16"]),
    ({"evaluation.batch_size": 0}, ["evaluation.batch_size=0"]),
    ({"sampling.image_guidance_scale": math.nan}, ["sampling.image_guidance_scale=nan"]),
    ({"mesh.data": 0}, ["mesh.data=0"]),
    ({"seed": -1}, ["seed=-1"]),
]


@pytest.mark.parametrize(("config", "expected_words"), FOLDERS)
def test_wrong_configurations(folder, config, expected_words):
    with pytest.raises(of.UserError) as error:
        of.load(folder, config)
    assert all(word in str(error.value) for word in expected_words), error.value


@pytest.mark.parametrize("path", [None, "", 3, b"runs"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(of.UserError, match=re.escape(f"workdir={path!r}: not the path")):
        of.load(path)


def test_wrong_folders(folder, tmp_path):
    with pytest.raises(of.UserError, match=r"nowhere: there is no such folder"):
        of.load(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    fresh = epath.Path(tmp_path / "fresh")
    fresh.mkdir()
    workdir.save_config(fresh, runs.make_config())
    with pytest.raises(of.UserError, match="no checkpoint"):
        of.load(fresh)
    assert not (fresh / workdir.TOKENIZER).exists()
    config = runs.make_config().copy_and_resolve_references().unlock()
    config.autoencoder = {"kind": "AutoencoderKL"}
    workdir.save_config(fresh, config)
    with pytest.raises(of.UserError, match="codec"):
        of.load(fresh)
    copy = runs.copy_run(folder, tmp_path)
    with pathlib.Path(copy, ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(of.UserError, match="in use"):
            of.load(copy)


@pytest.mark.parametrize("kind", ["mask_flow", "edit_flow", "chameleon"])
def test_all_kinds_of_models_stream_to_the_end(kind, tmp_path):
    model = runs.make_untrained_model(kind, epath.Path(tmp_path))
    *before, last = model.stream("red <image> <text>", temperature=0.5, top_k=3)
    assert before[0].t == 0.0
    assert last.t == 1.0
    assert last.document.nfe >= 2
    assert last.document.text.startswith("red")
    assert last.document.images == last.noisy_images
    if kind == "mask_flow":
        assert before[0].confidence == 0.0
        assert before[0].document.text.startswith("red ▒ ▒")
        assert "▒" not in last.document.text


def test_learned_grid_is_estimated_once(model, monkeypatch):
    calls = []

    def record_grid(system, params):
        calls.append(system.config.sampling.time_grid)
        return lambda done: done**2

    monkeypatch.setattr(evaluate, "time_grid", record_grid)
    planned = []
    sampling = sampling_lib.sampling_plan

    def record_plan(*args, **kwargs):
        planned.append(sampling(*args, **kwargs))
        return planned[-1]

    monkeypatch.setattr(sampling_lib, "sampling_plan", record_plan)
    model.stream("<image>", time_grid="learned", steps=2)
    model.stream("<image>", time_grid="learned", steps=4)
    assert [plan.schedule.times for plan in planned] == [(0.0, 0.25), (0.0, 0.0625, 0.25, 0.5625)]
    assert calls == ["learned"]


def test_info_describes_the_model(model):
    info = model.info()
    assert (info.name, info.paradigm) == (model.config.name, "oneflow")
    assert info.pixels == model.config.codec.pixels
    assert info.gap_tokens == model.config.data.text_slot_multiple
    assert info.slots == model.config.data.sequence_length
    assert info.parameters == sum(leaf.size for leaf in jax.tree.leaves(model._generator.params))
    assert "red" in info.words
    assert list(info.words) == sorted(info.words)
    text = str(info)
    assert f"{info.parameters:,} parameters" in text
    assert info.tasks == ("joint", "text_to_image", "image_to_text", "spans", "scattered")
    assert info.image_slots == 4
    assert "images from text, text from images, infilling, editing" in text


def test_info_shows_some_of_many_names_in_short_lines(model):
    names = tuple(f"name{n}" for n in range(1_300))
    info = dataclasses.replace(model.info(), names=names, words=names, gap_tokens=None)
    text = str(info)
    assert "any length" in text
    assert "1,300: name0, name108, name216" in text
    assert text.count("name") == 12 + len(["names", "(all: model.info().names)"])
    assert max(map(len, text.splitlines())) <= 96
    page = info._repr_html_()
    assert page.count("<details>") == 2
    assert "<summary>1,300 names: name0, name108" in page
    assert "name1299" in page
    few = str(dataclasses.replace(info, names=names[:3]))
    assert "3: name0, name1, name2\n" in few


def test_info_of_a_language_model_has_no_images(model):
    info = dataclasses.replace(model.info(), tasks=("text",), can_edit=False)
    assert "image" not in str(info)
    assert "text after text" in str(info)
