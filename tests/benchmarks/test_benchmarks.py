"""Tests that the benchmarks run and count correctly; their speeds are not tested."""

import functools
import json
import types

import numpy as np
import PIL.Image
import pytest

import oneflow_jax as of
from benchmarks import (
    ablation,
    codec,
    corpus,
    decode,
    drawings,
    engines,
    flow_map,
    fuzz,
    judge,
    paradigms,
    problem,
    quality,
    report,
    requests,
    roofline,
    sample,
    serve,
    style_judge,
    timing,
    train_step,
    tuning,
)
from benchmarks import input as reading
from oneflow_jax.compare import measure, serialize
from oneflow_jax.compare import runs as runs_lib
from oneflow_jax.data import style_packages
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import image_name_judge
from oneflow_jax.evaluation.nearest_image import features as pixel_features
from oneflow_jax.nn import unstack
from oneflow_jax.samplers import ode
from tests import runs
from tests.data import small_style_packages
from tests.data.beam import needs_beam

SPREAD = {"median", "low", "high"}


def test_train_step_writes_its_results(tmp_path):
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


def test_the_warm_up_has_the_structures_of_random_requests_to_the_shipped_model():
    model = of.load(of.PRETRAINED)

    def structures(made):
        class Recorder:
            def generate(self, prompt, samples, image_guidance_scale, **options):
                length = model.prepare_generate(prompt, samples=samples, **options).row_length
                seen.add((length, -(-samples // 2), image_guidance_scale != 1))

            def edit(self, document, **options):
                seen.add((model.prepare_edit(document, **options).row_length, "edit"))

        seen = set()
        for request in made:
            request(Recorder())
        return seen

    rng = np.random.default_rng(0)
    random = [requests.make_request(rng, 4) for _ in range(200)]
    warm_up = structures(requests.make_warm_up(4))
    assert structures(random) == warm_up
    assert len(warm_up) == 20


def test_random_requests_compile_nothing_after_the_warm_up(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "ROWS", (2,))
    path = tmp_path / "requests.json"
    folder = runs.trained_run()[1]
    requests.main(
        ["--workdir", str(folder), "--requests", "5", "--steps", "1", "--rows", "--json", str(path)]
    )
    results = json.loads(path.read_text())
    assert results["warm-up"]["compiled programs"] >= results["warm-up"]["sampling programs"] > 0
    assert results["random requests"]["requests"] == 5
    assert results["random requests"]["sampling programs"] == 0
    assert results["random requests"]["compiled programs"] == 0
    assert set(results["rows"]) == {"2 documents of 1 images", "2 documents of 2 images"}


def test_a_server_under_load_answers_what_the_model_generates(tmp_path):
    path, folder = tmp_path / "serve.json", runs.trained_run()[1]
    flags = ["--requests=6", "--forms=3", "--steps=1", "--clients", "2"]
    serve.main(["--workdir", str(folder), *flags, "--json", str(path)])
    results = json.loads(path.read_text())["2 clients"]
    assert (results["requests"], results["lost"], results["wrong"]) == (6, 0, 0)
    assert results["requests per second"] > 0


def test_sample_writes_its_cases(tmp_path):
    path = tmp_path / "sample.json"
    sample.main(["--smoke", "--batch", "1", "--nfe", "2", "--json", str(path)])
    results = json.loads(path.read_text())
    assert [(case["batch"], case["nfe"]) for case in results["cases"]] == [(1, 2)]
    for case in results["cases"]:
        assert set(case["seconds_per_document"]) == set(case["overhead"]) == SPREAD
        assert case["compile_seconds"] > 0


def test_decode_writes_a_case_per_batch_size(tmp_path):
    path = tmp_path / "decode.json"
    decode.main(["--smoke", "--tokens", "3", "--json", str(path)])
    cases = json.loads(path.read_text())["cases"]
    assert [case["batch"] for case in cases] == [1, 8]
    for case in cases:
        assert set(case["ratio"]) == set(case["stacked_seconds"]) == SPREAD
        assert case["unstacked_seconds"]["low"] > 0


def test_both_models_of_decode_write_the_same_tokens():
    workload = problem.Workload(problem.TINY)
    params = workload.init_state().params
    stacked, unstacked = (
        decode.make_writer(*pair, batch=2, tokens=5)()
        for pair in (
            (workload.model, params),
            unstack.unstack_layers(workload.model, params),
        )
    )
    assert isinstance(unstacked.key, tuple)
    np.testing.assert_allclose(np.stack(unstacked.key), stacked.key, atol=1e-5)


def test_paradigms_writes_a_case_per_paradigm(tmp_path):
    path = tmp_path / "paradigms.json"
    paradigms.main(["--smoke", "--nfe", "2", "--json", str(path)])
    cases = json.loads(path.read_text())["cases"]
    assert list(cases) == list(paradigms.NAMES)
    assert cases["oneflow"]["ratio"] == {"median": 1, "low": 1, "high": 1}
    for case in cases.values():
        assert case["seconds_per_pass"]["low"] > 0


def test_codec_measures_only_our_codec_without_torch(tmp_path, monkeypatch, capsys):
    path = tmp_path / "codec.json"
    monkeypatch.setattr(codec, "torch", None)
    codec.main(["--smoke", "--batch", "2", "--json", str(path)])
    assert "only our codec is measured" in capsys.readouterr().out
    (case,) = json.loads(path.read_text())["cases"]
    assert (case["size"], case["batch"], case["ours_over"]) == ("tiny", 2, {})
    assert set(case["images_per_second"]) == {"ours encode", "ours decode"}
    for rate in case["images_per_second"].values():
        assert set(rate) == SPREAD
        assert rate["low"] > 0


def test_roofline_writes_its_settings(tmp_path, capsys):
    path = tmp_path / "roofline.json"
    roofline.main(["--batch", "1", "8", "--nfe", "2", "4", "--json", str(path)])
    cases = json.loads(path.read_text())["cases"]
    assert [(case["network"], case["batch"]) for case in cases] == [
        ("1B", 1), ("1B", 8), ("8B", 1), ("8B", 8),
    ]  # fmt: skip
    for case in cases:
        first, second = case["seconds"]["oneflow"]
        assert second == pytest.approx(2 * first)
        assert case["seconds"]["chameleon"][0] == case["seconds"]["chameleon"][1] > first
        assert case["overtaking"]["oneflow"]["chameleon"] > 4
    assert "oneflow, mask_flow" in capsys.readouterr().out


def test_input_writes_its_rates(tmp_path):
    path = tmp_path / "input.json"
    reading.main(["--smoke", "--json", str(path)])
    results = json.loads(path.read_text())
    assert set(results["preparing"]) == {"1", "2"}
    assert all(rate > 0 for each in results["preparing"].values() for rate in each.values())
    assert set(results["reading"]["a step by a batch"]) == SPREAD


@needs_beam
def test_engines_are_compared_on_equal_documents(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(runs.REPOSITORY))
    path = tmp_path / "engines.json"
    engines.main(["--smoke", "--processes", "1", "--json", str(path)])
    rates = json.loads(path.read_text())["documents a second"]
    assert set(rates) == {"local", "DirectRunner"}
    assert all(set(rate) == SPREAD and rate["low"] > 0 for rate in rates.values())


def test_corrupted_files_cause_no_failures(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(runs.REPOSITORY))
    path = tmp_path / "fuzz.json"
    fuzz.main(["--files", "60", "--seed", "7", "--json", str(path)])
    results = json.loads(path.read_text())
    harm = {"crashes": 0, "hangs": 0, "unexpected": 0, "outside": 0}
    assert results["total"] == {"files": 60 * len(corpus.FORMATS)} | harm
    reasons = {reason for each in results["kinds"].values() for reason in each["lost"]}
    # The damaged files were really read.
    assert {"outside the folder", "not a file", "damaged picture", "not a picture"} <= reasons
    assert all(each["kept"] for each in results["kinds"].values())


def test_bare_loop_generates_equal_documents():
    """Check that the bare loop computes what diffrax computes, so their times are comparable."""
    state = {"a": np.float32([1.0, -2.0])}
    plan = ode.make_schedule("euler", 5)

    def velocity(t, x):
        return {"a": t - x["a"]}

    made, bare = (
        ode.solve(make(velocity, plan), state, plan.times)[0]["a"]
        for make in (ode.make_stepper, sample.make_bare_stepper)
    )
    np.testing.assert_allclose(bare, made, rtol=1e-6)


def test_peak_is_the_fastest_matrix_product():
    seconds = {"step": [9.0, 9.0], "matmul_10": [1.0, 2.0], "matmul_100": [10.0, 5.0]}
    assert timing.peak_flops(seconds) == [2e6 / 10, 2e6 / 5]


def test_rounds_are_interleaved():
    order = []
    contestants = {name: functools.partial(order.append, name) for name in "ab"}
    seconds = timing.time_interleaved(contestants, 2)
    assert order == ["a", "b"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_tuning_uses_one_folder_per_setting(tmp_path, monkeypatch, capsys):
    tried = {}

    def train_stub(config, folder, model):
        text = config.text_model.optimizer.learning_rate
        assert (
            model.config.paradigm.time_sampler
            == config.text_model.paradigm.time_sampler
            == ("power", 3.0)
        )
        tried[model.name, model.config.optimizer.learning_rate] = (text, folder.name, model)
        return model

    def measure_stub(model, config):
        assert config.models_shown == (model.name,)
        return serialize.RunMeasurements(
            {"kid_efficientnet": serialize.Measurement(0.25)}, {}, (), None
        )

    monkeypatch.setattr(runs_lib, "ensure_codec", lambda config, folder: None)
    monkeypatch.setattr(runs_lib, "train_run", train_stub)
    monkeypatch.setattr(measure, "measure", measure_stub)
    arguments = ["dalle", "lmfusion", "--rates", "1e-3", "2e-3", "--flops", "9e8"]
    clock = "paradigm.time_sampler=('power', 3.0)"
    rows = tuning.main([*arguments, "--set", clock, "--out", str(tmp_path)])
    assert list(tried) == [(n, rate) for n in ("dalle", "lmfusion") for rate in (1e-3, 2e-3)]
    assert [(rate, folder) for rate, folder, _ in tried.values()] == 2 * [
        (1e-3, f"0.001,{clock}"),
        (2e-3, f"0.002,{clock}"),
    ]
    flops = [model.flops_budget for *_, model in tried.values()]
    assert flops == pytest.approx([9e8, 9e8, 6e8, 6e8])
    codecs = {model.config.codec.path for *_, model in tried.values() if model.name == "dalle"}
    assert codecs == {str(tmp_path / "codec" / "codec")}
    more = tuning.main(["dalle", "--rates", "1e-3", "5e-3", "--set", clock, "--out", str(tmp_path)])
    saved_rows = json.loads((tmp_path / "tuning.json").read_text())["rows"]
    assert saved_rows == [*rows, *more]  # Rows with another FLOP budget are kept too.
    assert "| lmfusion | 0.002 | – | – | – | – | 0.250 | – | – |" in capsys.readouterr().out


def test_ablation_trains_each_variant_once_and_keeps_rows_of_earlier_calls(
    tmp_path, monkeypatch, capsys
):
    trained, measured = [], []

    def train_stub(config, folder, run):
        assert run.flops_budget == 9e8
        assert folder.parent == tmp_path / run.config.source.name / "9e+08"
        trained.append((folder.name, run.seed, run.config.paradigm.tasks.joint))
        return types.SimpleNamespace(system=types.SimpleNamespace(config=run.config), params=None)

    def measure_stub(system, params, nfe, flags):
        measured.append((flags.documents, nfe, system.config.sampling.temperature))
        return {"interleaved_score": 0.25}

    monkeypatch.setattr(runs_lib, "train_run", train_stub)
    monkeypatch.setattr(ablation, "measure", measure_stub)
    arguments = ["baseline", "tasks+time", "--flops", "9e8", "--out", str(tmp_path)]
    rows = ablation.main([*arguments, "--seeds", "0", "1", "--nfe", "4", "16"])
    assert trained == [
        ("baseline", 0, 0.6),
        ("tasks+time", 0, 0.4),
        ("baseline", 1, 0.6),
        ("tasks+time", 1, 0.4),
    ]
    assert measured == 4 * [("selection", 4, 1.0), ("selection", 16, 1.0)]
    assert len(rows) == 8
    more = ablation.main([*arguments, "--documents", "report", "--sampling", "sampling.steps=3"])
    more += ablation.main([*arguments, "--data", "emoji_styles"])
    saved_rows = json.loads((tmp_path / "ablation.json").read_text())["rows"]
    assert saved_rows == [*rows, *more]
    assert "| tasks+time | 1 | 16 | 0.250 | – |" in capsys.readouterr().out
    with pytest.raises(UserError, match="hope: unknown variant"):
        ablation.main(["baseline+hope", "--out", str(tmp_path)])


def test_ablation_trains_the_codec_and_the_text_model_that_a_paradigm_needs(tmp_path, monkeypatch):
    codecs = []

    def train_stub(config, folder, run):
        assert config.text_model.optimizer.name == run.config.optimizer.name == "muon"
        assert config.text_model.paradigm.tasks.joint == 0.6
        return types.SimpleNamespace(system=types.SimpleNamespace(config=run.config), params=None)

    monkeypatch.setattr(
        runs_lib,
        "ensure_codec",
        lambda config, folder: codecs.append((config.models_shown, folder)),
    )
    monkeypatch.setattr(runs_lib, "train_run", train_stub)
    monkeypatch.setattr(ablation, "measure", lambda *_: {})
    for name in ("lmfusion", "dalle"):
        arguments = ["muon+tasks", "--flops", "9e8", "--out", str(tmp_path)]
        ablation.main([*arguments, "--paradigm", name])
    folder = tmp_path / "emoji" / "9e+08" / "muon+tasks"
    assert codecs == [(("lmfusion",), folder), (("dalle",), folder)]


def test_flow_map_starts_from_the_run_of_the_ablation(tmp_path, monkeypatch, capsys):
    measured = []

    def train_stub(run):
        assert run.flops_budget == 0.25 * 9e8
        assert run.config.init_from == str(tmp_path / "emoji/9e+08/muon/oneflow-1")
        assert run.config.paradigm.flow_map
        assert run.config.optimizer.name == "muon"
        run.folder.mkdir(parents=True)
        return types.SimpleNamespace(system=types.SimpleNamespace(config=run.config), params=None)

    def measure_stub(system, params, nfe, flags):
        measured.append((system.config.sampling.solver, nfe, flags.documents))
        return {"interleaved_score": 0.25}

    monkeypatch.setattr(runs_lib, "train_one", train_stub)
    monkeypatch.setattr(ablation, "measure", measure_stub)
    arguments = ["muon", "--flops", "9e8", "--seed", "1", "--out", str(tmp_path)]
    rows = flow_map.main([*arguments, "--samplers", "jump:2", "renoise:16"])
    assert measured == [("jump", 2, "selection"), ("renoise", 16, "selection")]
    (saved,) = tmp_path.glob("emoji/9e+08/muon-flow_map-0.25-0.003/oneflow-1/flow_map.json")
    assert json.loads(saved.read_text())["rows"] == rows
    assert "| renoise:16 | 1 | 16 | 0.250 | – |" in capsys.readouterr().out


def test_judge_separates_real_and_shuffled_documents(tmp_path, monkeypatch, capsys):
    quick = functools.partial(image_name_judge.Judge.train, copies=8, steps=150)
    monkeypatch.setattr(image_name_judge.Judge, "train", quick)
    path = tmp_path / "judge.json"
    judge.main(["--smoke", "--data", str(tmp_path / "data"), "--json", str(path)])
    results = json.loads(path.read_text())
    figures = [results["interleaved_score"][f"{share:g}"] for share in judge.SHUFFLED_FRACTIONS]
    values = [value for value, _, _ in figures]
    assert values == sorted(values, reverse=True)
    assert figures[0] == [
        1,
        1,
        1,
    ]  # Without shuffling, real documents are compared with themselves.
    assert values[-1] < 0.5
    assert all(0 <= low <= high <= 1 for _, low, high in figures)
    assert all(0.5 < share <= 1 for share in results["named"].values())
    assert "50% shuffled" in capsys.readouterr().out


def test_the_judge_of_styles_is_measured_on_pairs_that_it_has_not_seen(
    tmp_path, monkeypatch, capsys
):
    quick = functools.partial(image_name_judge.Judge.train, steps=20)
    monkeypatch.setattr(image_name_judge.Judge, "train", quick)
    monkeypatch.setattr(
        image_name_judge, "features", lambda images: np.stack([*map(pixel_features, images)])
    )
    folder = small_style_packages.write(tmp_path / "packages")
    styles = ["--styles", *small_style_packages.STYLES, "--min-styles", "3", "--names", "16"]
    path = tmp_path / "judge.json"
    style_judge.main(["--packages", str(folder), *styles, "--copies", "2", "--json", str(path)])
    results = json.loads(path.read_text())
    metrics = {"clean", "clean_name", "clean_style", "copies", "copies_name", "copies_style"}
    for accuracy in results["accuracy"].values():
        assert set(accuracy) == metrics
        assert all(0 <= low <= value <= high <= 1 for value, low, high in accuracy.values())
    assert results["accuracy"]["nearest drawing"]["clean"] == [1, 1, 1]
    assert results["accuracy"]["nearest without the pairs"]["copies"] == [0, 0, 0]
    assert results["accuracy"]["nearest without the pairs"]["copies_name"][0] > 0.5
    assert f"fraction of {results['pairs']} held-out pairs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt"], "gpt: not part of the comparison. Choose from chameleon"),
        (["oneflow", "--set", "seed=1"], "seed with --seed"),
        (["oneflow", "--set", "paradigm.clok=3"], "--set paradigm.clok=3: .*clok"),
        (["oneflow", "--set", "paradim.time=3"], "--set paradim.time=3: .*paradim"),
        (
            ["oneflow", "--set", "paradigm.min_one_minus_t=low"],
            "--set paradigm.min_one_minus_t=low: .*min_one_minus_t",
        ),
        (["oneflow", "--set", "paradigm.min_one_minus_t"], "Give key=value"),
    ],
)
def test_tuning_errors_are_reported(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        tuning.main([*arguments, "--smoke", "--out", str(tmp_path)])


def test_quality_samples_with_each_time_grid(tmp_path, monkeypatch):
    task = types.SimpleNamespace(name="joint", is_editing=False, may_insert_images=False)
    suite, plans = types.SimpleNamespace(tasks=[task]), []
    copy = runs.copy_run(runs.trained_run()[1], tmp_path)
    real = quality.evaluate.task_plan

    class PlannedError(Exception):
        pass

    def plan_stub(*arguments):
        plans.append(real(*arguments).schedule.times)
        raise PlannedError

    monkeypatch.setattr(quality, "run_dir", lambda *_: copy)
    monkeypatch.setattr(quality.system_lib, "supported_suite", lambda system: suite)
    monkeypatch.setattr(quality.evaluate, "task_plan", plan_stub)
    for grid in ("uniform", "quadratic"):
        flags = types.SimpleNamespace(runs="", tasks=None, grids=[grid], nfe=[2])
        with pytest.raises(PlannedError):
            next(quality.measure(runs.make_config(), flags))
    assert plans == [(0.0, 0.5), (0.0, 0.25)]


def test_benchmark_reports_an_error_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: gpt: not part of the comparison"):
        report.run_main(lambda: tuning.main(["gpt", "--out", str(tmp_path)]))
    with pytest.raises(UserError, match=r"there is no configs/nowhere\.py"):
        quality.load_config("nowhere:edit_flow", [])


def test_drawings_sheet(tmp_path, capsys):
    folder = small_style_packages.write(tmp_path / "packages", style_packages.NAMES)
    path = tmp_path / "sheet.png"
    drawings.main(["--packages", str(folder), "--names", "4", "--out", str(path)])
    with PIL.Image.open(path) as sheet:
        # Ten styles in rows, and four names in columns.
        assert sheet.size == (4 * drawings.CELL, 10 * drawings.CELL)
        corners = np.asarray(sheet.convert("RGB"))[:: drawings.CELL, :: drawings.CELL]
    held_out = int((corners == drawings.HELD_OUT_COLOR).all(axis=-1).sum())
    assert held_out > 0
    # "mozilla" has no drawing of two of the names.
    assert f"38 drawings, of which {held_out} are not" in capsys.readouterr().out
