"""The Python interface: prompts and results are what they say, options and mistakes are told."""

import dataclasses
import fcntl
import pathlib
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from etils import epath

import oneflow_jax as of
from configs import common
from oneflow_jax import evaluate
from oneflow_jax.api.document import to_internal
from oneflow_jax.build import sampling as sampling_lib
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.data import document as inner
from oneflow_jax.data import toy
from oneflow_jax.runtime import workdir
from oneflow_jax.training import train_state
from oneflow_jax.viewer import trajectory
from tests import runs
from tests.codecs.autoencoder import small_models

RED = np.full((4, 4, 3), toy.COLORS["red"], np.uint8)


@pytest.fixture(scope="module")
def folder():
    return runs.trained_run()[1]


@pytest.fixture(scope="module")
def model(folder):
    return of.load(str(folder), {"sampling.steps": 2, "evaluation.batch": 16})


@pytest.fixture
def traces(model, monkeypatch):
    """One entry for each time that the sampler is traced from here on."""
    found = []
    kind = type(model._system.paradigm)
    sample = kind.sample

    def counted(self, apply, table, keys, canvas, plan):
        found.append(canvas.ids.shape)
        return sample(self, apply, table, keys, canvas, plan)

    monkeypatch.setattr(kind, "sample", counted)
    return found


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


def test_all_public_names_are_there_and_no_others():
    assert set(of.__all__) <= set(dir(of))
    assert all(getattr(of, name) is not None for name in of.__all__)
    with pytest.raises(AttributeError, match="laod"):
        _ = of.laod


def test_what_is_given_stays_and_gaps_are_filled(model):
    document, other = model.generate("a picture of red: <image> and <text>", samples=2, seed=3)
    assert isinstance(document.parts[0], str)
    assert document.parts[0] == "a picture of red:"
    (picture,) = document.images
    assert (picture.mode, picture.size) == ("RGB", (4, 4))
    assert document.passes == 2
    assert not document.full
    assert document.images != other.images
    (again,) = model.generate("a picture of red: <image> and <text>", seed=3)
    assert again == document
    (unlike,) = model.generate("a picture of red: <image> and <text>", seed=4)
    assert unlike != document
    # What was said of one call is forgotten by the next.
    (first,) = model.generate("a picture of red: <image> and <text>")
    assert model.generate("a picture of red: <image> and <text>", seed=0) == [first]
    assert unlike != first


def test_lists_of_parts_say_the_same_as_strings(model, tmp_path):
    path = tmp_path / "red.png"
    PIL.Image.fromarray(RED).save(path)
    ways = [
        f"red <image:{path}> <text:3> <image>",
        ["red", RED, of.text(3), of.IMAGE],
        ("red", PIL.Image.fromarray(RED).convert("RGBA"), "<text:3> <image>"),
        of.Document(["red", PIL.Image.open(path), of.text(3), of.IMAGE]),
    ]
    said = [to_internal(way, 4) for way in ways]
    for document in said:
        assert document.parts[2:] == (inner.Gap("text", 3), inner.Gap("image"))
        np.testing.assert_array_equal(document.parts[1].pixels, RED)
        assert document.parts[0] == inner.Text("red")
    assert to_internal(of.TEXT, 4) == inner.Document((of.TEXT,))


def test_strings_of_a_document_are_no_tags():
    (part,) = to_internal(of.Document("<image>"), 4).parts
    assert part == inner.Text("<image>")


def test_a_batch_is_one_document_each_whatever_its_rows(model):
    prompts = ["<text> <image>", [RED, of.TEXT], "red <image>"]
    three = model.generate_batch(prompts)
    assert len(three) == 3
    np.testing.assert_array_equal(pixels(three[1].images[0]), RED)
    assert three[2].text == "red"
    assert model.generate_batch(prompts[:1]) == three[:1]
    assert model.generate_batch([]) == []


def test_programs_are_compiled_for_shapes_not_for_prompts(model, traces):
    options = {"guidance": 1.5}  # That nobody else here has asked for.
    model.generate("a picture of red: <image>", **options)
    assert len(traces) == 1
    assert traces[0][0] == 8
    model.generate("blue <image>", seed=5, **options)
    model.generate_batch(["green <image>", "<image>"], **options)
    model.generate("<image>", samples=8, seed=2, **options)
    assert len(traces) == 1
    model.generate("<image>", samples=9, **options)
    assert len(traces) == 2


def test_the_stream_ends_with_the_document(model):
    prompt = ["blue", of.IMAGE, of.TEXT]
    every = list(model.stream(prompt, seed=7))
    assert [state.t for state in every] == [0.0, 0.5, 1.0]
    (document,) = model.generate(prompt, seed=7)
    assert every[-1].document == document
    assert every[-1].document.passes == document.passes == 2
    for state in every:
        assert state.document.text.startswith("blue")
        assert len(state.noisy) == len(state.document.images) == 1
        assert 0 < state.certainty < 1
        assert [word.given for word in state.words][:1] == [True]
    first, *_, last = every
    assert pixels(first.noisy[0]).std() > 10
    assert (pixels(first.noisy[0]) != pixels(last.noisy[0])).any()
    assert (pixels(first.noisy[0]) != pixels(first.document.images[0])).any()
    assert last.noisy == document.images


def test_slides_show_every_state_the_last_one_first(model):
    states = list(model.stream("red <image> <text>", seed=7))
    shown = of.TrajectoryViewer(states)._repr_html_()
    slides = shown.split("data-slide ")[1:]
    assert [re.search(r"t = (\d.\d\d)", slide)[1] for slide in slides] == ["0.00", "0.50", "1.00"]
    assert ["display: none" in slide for slide in slides] == [True, True, False]
    assert 'max="2" value="2"' in shown
    odd = trajectory.TextSpan(0, (trajectory.TokenView(0, "<b>", 0.9),), 1.0)
    told = of.TrajectoryViewer(
        [dataclasses.replace(states[0], frame=trajectory.Frame(0.5, (odd,)))]
    ).html()
    assert "&lt;b&gt;" in told
    assert "<b>" not in told
    # The picture as it stands, and what the network expects; at the end the two are one.
    for slide in slides:
        assert slide.count("data:image/png") == 2
    noisy, expected = re.findall(r"data:image/png;base64,([^\"]+)", slides[0])
    assert noisy != expected
    assert "http" not in shown
    with pytest.raises(of.UserError, match="no states"):
        of.TrajectoryViewer([])


def test_a_stream_tells_mistakes_at_once(model):
    with pytest.raises(of.UserError, match="no gap"):
        model.stream("red")
    with pytest.raises(of.UserError, match="top_p"):
        model.stream("<image>", top_p=0.5)


def test_revision_lists_its_edits(model):
    document = of.Document(["a picture of red:", RED])
    early, late = (model.revise(document, start=start) for start in (0.001, 0.9))
    assert early != late
    assert isinstance(early, of.EditResult)
    assert early.passes == 2
    # Next to nothing was left to go by, and the network has learned next to nothing.
    gone = [edit.before for edit in early.edits if edit.before]
    assert "<image>" in gone
    assert set(gone) - {"<image>"}
    assert set(gone) <= {*document.text.split(), "<image>"}


OPTIONS = [
    ({"step": 3}, ["step", "steps", "guidance"]),
    ({"steps": 0}, ["sampling.steps=0"]),
    ({"steps": 2.5}, ["sampling.steps=2.5"]),
    ({"steps": "many"}, ["sampling.steps", "many"]),
    ({"steps": None}, ["sampling.steps", "int"]),
    ({"steps": True}, ["sampling.steps", "int"]),
    ({"solver": "rk99"}, ["rk99", "heun"]),
    ({"grid": "square"}, ["square", "cosine"]),
    ({"temperature": 0.5}, ["temperature", "oneflow"]),
    ({"top_k": -1}, ["top_k"]),
    ({"order": "backwards"}, ["backwards", "confidence"]),
    ({"seed": -1}, ["seed=-1"]),
    ({"seed": 2**31}, ["seed"]),
    ({"samples": 0}, ["samples=0"]),
    ({"start": 0.5}, ["start"]),
]


@pytest.mark.parametrize(("options", "told"), OPTIONS)
def test_wrong_options(model, options, told):
    with pytest.raises(of.UserError) as error:
        model.generate("<image>", **options)
    assert all(word in str(error.value) for word in told), error.value


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
    ("<document>", "edit_flow"),
    ("<image:none.png>", "none.png"),
    ("Ж <image>", "Ж"),
    ("<image> " * 40, "data.length"),
]


@pytest.mark.parametrize(("prompt", "told"), PROMPTS)
def test_wrong_prompts(model, prompt, told):
    with pytest.raises(of.UserError, match=told):
        model.generate(prompt)


def test_wrong_calls(model):
    with pytest.raises(of.UserError, match="list of prompts"):
        model.generate_batch("<image>")
    with pytest.raises(of.UserError, match="gap"):
        model.revise("<image>")
    with pytest.raises(of.UserError, match="start"):
        model.revise("red", start=1.0)
    with pytest.raises(of.UserError, match=r"text\(0\)"):
        of.text(0)
    with pytest.raises(of.UserError, match="int"):
        of.Document([3])


def test_a_picture_that_cannot_be_read(tmp_path):
    path = tmp_path / "half.png"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(of.UserError, match="cannot be read"):
        to_internal([PIL.Image.open(path), of.TEXT], 4)


def test_documents_are_shown_by_themselves(tmp_path):
    document = of.Document(["1 < 2 & red", RED, of.text(3)])
    shown = document._repr_html_()
    assert "1 &lt; 2 &amp; red" in shown
    assert "&lt;text:3&gt;" in shown
    assert shown.count('src="data:image/png;base64,') == 1
    path = document.save(tmp_path / "new" / "red.html")
    assert shown in path.read_text()
    assert "http" not in path.read_text()
    assert str(document) == "1 < 2 & red <image:4x4> <text:3>"
    with pytest.raises(of.UserError, match=r"red.png"):
        document.save("red.png")
    with pytest.raises(dataclasses.FrozenInstanceError):
        document.parts = ()


def test_configuration_of_a_run_is_its_default(folder):
    loaded = of.load(folder, {"sampling.steps": np.int64(3), "sampling.seed": 4})
    assert loaded.config.sampling.steps == 3
    assert loaded.config.sampling.seed == 4
    assert loaded._system.mesh.shape["data"] == 8
    cut = of.load(folder, {"mesh.data": 4, "mesh.tensor": 2})
    assert cut._system.mesh.shape == {"slices": 1, "data": 4, "fsdp": 1, "sequence": 1, "tensor": 2}


def test_batches_of_training_need_not_fit_the_devices(folder, tmp_path):
    """A run with 6 rows a batch, as on 2 devices, goes over 8."""
    copy = runs.copy_run(folder, tmp_path)
    config = workdir.load_config(copy)
    config.batch, config.parts, config.evaluation.batch = 6, 3, 6
    config.evaluation.passes, config.sampling.guidance = (1,), 2.0
    config.evaluation.thorough = True
    workdir.save_config(copy, config)
    before = runs.read_files(copy)
    loaded = of.load(copy)
    assert loaded.config.batch == loaded.config.evaluation.batch == 8
    assert runs.read_files(copy) == before


FOLDERS = [
    ({"model.width": 64}, ["model.width", "another configuration"]),
    ({"sampling.stpes": 3}, ["sampling.stpes", "configs/common.py"]),
    ({"sampling.steps.more": 3}, ["sampling.steps.more", "configs/common.py"]),
    ({"sampling.steps": "many"}, ["sampling.steps", "many"]),
    ({"sampling": 3}, ["sampling", "3"]),
    ({"mesh.data": 3}, ["mesh", "8"]),
    ({"platform": "tpu"}, ["TPU"]),
]


@pytest.mark.parametrize(("config", "told"), FOLDERS)
def test_wrong_configurations(folder, config, told):
    with pytest.raises(of.UserError) as error:
        of.load(folder, config)
    assert all(word in str(error.value) for word in told), error.value


def test_wrong_folders(folder, tmp_path):
    with pytest.raises(of.UserError, match=r"nowhere has no config\.json"):
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


def untrained(kind, folder):
    """A model of a paradigm as it is before its first step."""
    config = runs.make_config().copy_and_resolve_references().unlock()
    config.data.dir = str(folder / "data")
    common.set_paradigm(config, kind)
    if kind == "chameleon":
        diffusers_weights.save(
            folder / "vq", small_models.VQ, small_models.random_params(small_models.VQ)
        )
        config.codec = common.vq_codec(str(folder / "vq"), pixels=4)
    config.sampling.update({"solver": "euler", "grid": "uniform", "steps": 2})
    system = runs.prepare_system(folder / "run", config.lock())
    return of.Model(system, train_state.init_sharded(system).ema)


@pytest.mark.parametrize("kind", ["mask_flow", "edit_flow", "chameleon"])
def test_all_kinds_of_models_stream_to_the_end(kind, tmp_path):
    model = untrained(kind, epath.Path(tmp_path))
    *before, last = model.stream("red <image> <text>", temperature=0.5, top_k=3)
    assert before[0].t == 0.0
    assert last.t == 1.0
    assert last.document.passes >= 2
    assert last.document.text.startswith("red")
    assert last.document.images == last.noisy
    if kind == "mask_flow":
        assert before[0].certainty == 0.0
        assert before[0].document.text.startswith("red ▒ ▒")
        assert "▒" not in last.document.text


def test_a_learned_grid_is_measured_once(model, monkeypatch):
    calls = []

    def measured(system, params):
        calls.append(system.config.sampling.grid)
        return lambda done: done**2

    monkeypatch.setattr(evaluate, "time_grid", measured)
    planned = []
    sampling = sampling_lib.sampling_plan

    def seen(*args, **kwargs):
        planned.append(sampling(*args, **kwargs))
        return planned[-1]

    monkeypatch.setattr(sampling_lib, "sampling_plan", seen)
    model.stream("<image>", grid="learned", steps=2)
    model.stream("<image>", grid="learned", steps=4)
    assert [plan.schedule.times for plan in planned] == [(0.0, 0.25), (0.0, 0.0625, 0.25, 0.5625)]
    assert calls == ["learned"]
