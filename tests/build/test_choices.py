"""Tests of values that are chosen from the data and from the speed of the machine."""

import json

import jax
import pytest
from etils import epath

from configs import codec, own
from oneflow_jax.build import choice_record, choices, row_lengths, speed, values
from oneflow_jax.data import overflow
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, workdir
from tests import runs, tiny

DATA_KEYS = tuple(choices.DATA_CHOICES)


def write_captions(folder, captions):
    """Write JSON lines with one caption in each line."""
    folder.mkdir()
    lines = [json.dumps({"text": caption}) for caption in captions]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


def command(tmp_path, source, *arguments):
    return (
        "--config=configs/own.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.source.path={source}",
        f"--config.data.dir={tmp_path / 'data'}",
        *arguments,
    )


def load(tmp_path):
    return workdir.load_config(epath.Path(tmp_path / "run"))


@pytest.fixture
def source(tmp_path):
    captions = [f"the number {number}" for number in range(95)]
    return write_captions(tmp_path / "source", [*captions, *["one two three " * 50] * 2])


def test_preparation_chooses_lengths_that_fit_most_texts(tmp_path, source, cli, caplog):
    caplog.set_level("INFO")
    cli(*command(tmp_path, source, "--mode=prepare"))
    config = load(tmp_path)
    assert 4 <= config.data.text_slot_multiple <= 12
    assert config.data.sequence_length == row_lengths.MIN_ROW
    assert config.batch_size == choices.BATCH_SLOTS // row_lengths.MIN_ROW
    slots = config.data.text_slot_multiple
    reason = "because 95% of your texts have at most"
    assert f"Chosen: data.text_slot_multiple={slots}, {reason}" in caplog.text
    report = (tmp_path / "run" / "data_report.html").read_text()
    assert f"data.text_slot_multiple</th><td>{slots}</td><td>{reason}" in report
    assert not set(config.choose) & set(DATA_KEYS)
    assert "steps" in config.choose


def test_long_texts_get_longer_gaps_and_rows(tmp_path, cli):
    captions = [" ".join(f"{number}{letter}" for letter in "abcdefgh" * 4) for number in range(60)]
    cli(*command(tmp_path, write_captions(tmp_path / "source", captions), "--mode=prepare"))
    config = load(tmp_path)
    assert config.data.text_slot_multiple == row_lengths.MAX_TEXT_SLOTS
    assert row_lengths.MIN_ROW < config.data.sequence_length <= row_lengths.MAX_ROW
    assert config.batch_size % jax.device_count() == 0
    assert config.batch_size * config.data.sequence_length >= choices.BATCH_SLOTS


def test_values_of_the_command_line_are_not_chosen(tmp_path, source, cli, parse):
    flag = "--config.data.text_slot_multiple=20"
    cli(*command(tmp_path, source, "--mode=prepare", flag))
    assert load(tmp_path).data.text_slot_multiple == 20
    config = parse(*command(tmp_path, source, "--config.steps=7"))
    assert "steps" not in config.choose
    assert "data.text_slot_multiple" in config.choose


FAST = speed.Speed(step_seconds=0.25, evaluation_seconds=0.0)
"""Times of a machine on which an evaluation takes no time."""


def choose_all(tmp_path, monkeypatch, measured=FAST, **changes):
    """Return the configuration of a run of two minutes with all choices of training."""
    monkeypatch.setattr(speed, "measure", lambda config, folder: measured)
    config = runs.make_config(**changes).unlock()
    config.choose, config.minutes = tuple(choices.TRAINING_CHOICES), 2.0
    return choices.choose(config.lock(), epath.Path(tmp_path), "train")


def test_the_number_of_steps_fits_the_time(tmp_path, monkeypatch):
    chosen = choose_all(tmp_path, monkeypatch)
    assert chosen.steps == 2 * 60 / 0.25
    assert chosen.evaluation.every == chosen.checkpoint.every == choices.MIN_INTERVAL
    assert chosen.choose == ()
    assert chosen.is_locked


@pytest.mark.parametrize(("steps", "interval"), [(10, 10), (100, 25), (2_000, 100)])
def test_short_runs_are_evaluated_more_rarely(steps, interval):
    config = workdir.replace_values(runs.make_config(), {"steps": steps})
    assert choices.choose_evaluation_interval(config, lambda: FAST).value == interval


@pytest.mark.parametrize("evaluation_seconds", [0.1, 1.0, 5.0, 20.0])
def test_evaluations_take_a_bounded_part_of_the_time(evaluation_seconds):
    config = workdir.replace_values(runs.make_config(), {"steps": 1_000})
    slow = speed.Speed(0.5, evaluation_seconds)
    interval = choices.choose_evaluation_interval(config, lambda: slow).value
    seconds = config.steps // interval * evaluation_seconds
    assert seconds <= choices.MAX_LOSS_TIME * config.steps * slow.step_seconds
    assert config.steps // interval >= 3


def test_a_run_has_an_evaluation_even_if_it_takes_longer_than_training():
    config = workdir.replace_values(runs.make_config(), {"steps": 10})
    slow = speed.Speed(0.1, 60.0)
    interval, reason = choices.choose_evaluation_interval(config, lambda: slow)
    assert interval == 10
    assert reason.startswith("so that the run has 1 evaluation of 60.0 s, beside 0.0 minutes")


@pytest.mark.parametrize(("minutes", "least", "most"), [(0.2, 8, 8), (4.0, 20, 40), (60.0, 64, 64)])
def test_short_runs_generate_fewer_documents(minutes, least, most):
    """Check the number of documents with NFE 16 and batches of 16 rows."""
    values = {
        "steps": round(60 * minutes / 0.5),
        "batch_size": 16,
        "evaluation.num_samples": 64,
        "evaluation.nfe": (16,),
    }
    config = workdir.replace_values(runs.make_config(), values)
    samples, reason = choices.choose_num_samples(config, lambda: FAST)
    assert least <= samples <= most
    assert ("it is the minimum" in reason) == (minutes < 1)
    passes = 16 * (4 * samples + choices.MORE_SAMPLES) / config.batch_size
    if samples > choices.MIN_SAMPLES:
        allowed = choices.MAX_GENERATION_TIME * choices.FORWARD_PASSES_PER_STEP
        assert passes <= allowed * config.steps


@pytest.mark.parametrize(("steps", "warmup"), [(40, 10), (2, 1), (1_000, 100)])
def test_short_runs_warm_up_in_fewer_steps(tmp_path, steps, warmup):
    config = runs.make_config(steps=steps, optimizer__warmup_steps=100).unlock()
    config.choose = (choices.WARMUP,)
    values.validate_training(config)
    chosen = choices.choose(config.lock(), epath.Path(tmp_path), "train")
    assert chosen.optimizer.warmup_steps == warmup
    values.validate_training(workdir.replace_values(chosen, {"choose": ()}))
    recorded = choice_record.read(epath.Path(tmp_path), chosen)
    assert set(recorded) == ({choices.WARMUP} if warmup < 100 else set())


def test_a_chosen_number_of_steps_may_be_smaller_than_the_default_warm_up(tmp_path, monkeypatch):
    slow = speed.Speed(step_seconds=10.0, evaluation_seconds=0.0)
    monkeypatch.setattr(speed, "measure", lambda config, folder: slow)
    config = runs.make_config(optimizer__warmup_steps=100).unlock()
    config.choose, config.minutes = ("steps", choices.WARMUP), 2.0
    chosen = choices.choose(config.lock(), epath.Path(tmp_path), "train")
    assert (chosen.steps, chosen.optimizer.warmup_steps) == (12, 3)


def test_a_warm_up_of_the_command_line_is_not_chosen(parse):
    common = ("--config=configs/quickstart.py", "--config.steps=40")
    assert choices.WARMUP in parse(*common).choose
    assert choices.WARMUP not in parse(*common, "--config.optimizer.warmup_steps=50").choose


def test_checkpoints_follow_the_interval_of_evaluations_that_was_given():
    config = runs.make_config(steps=100, evaluation__every=40)
    assert choices.choose_checkpoint_interval(config, lambda: FAST).value == 40


def test_the_times_of_a_step_and_of_an_evaluation_are_measured(tmp_path, monkeypatch):
    """Check that the times are positive, and those of the slowest process."""
    config = runs.make_config()
    runs.prepare_system(tmp_path, config)
    gathered = []

    def gather(own):
        gathered.append(own)
        return own | {"1": [1_000.0, 0.0]}

    monkeypatch.setattr(distributed, "all_gather_json", gather)
    measured = speed.measure(config, epath.Path(tmp_path))
    ((_, evaluation_seconds),) = gathered[-1].values()
    assert measured == speed.Speed(1_000.0, evaluation_seconds)
    assert 0 < evaluation_seconds < 60


def test_reasons_are_kept_with_the_run(tmp_path, monkeypatch):
    folder = epath.Path(tmp_path)
    config = choose_all(tmp_path, monkeypatch)
    chosen = choice_record.read(folder, config)
    assert set(chosen) == set(choices.TRAINING_CHOICES)
    assert chosen["steps"].value == config.steps
    assert "about 2 minutes (0.25 s per step)" in chosen["steps"].reason
    table = choice_record.format_table(chosen)
    assert f"  steps={config.steps}, so that training takes about 2 minutes" in table
    longer = workdir.replace_values(config, {"steps": config.steps + 1})
    assert set(choice_record.read(folder, longer)) == set(chosen) - {"steps"}
    assert choice_record.format_table({}) == ""
    (folder / workdir.CHOICES).write_text("{")
    with pytest.raises(UserError, match=r"choices\.json: the file is damaged"):
        choice_record.read(folder, config)


@pytest.mark.parametrize(
    ("lengths", "slots"), [([80] * 99 + [90], 240), ([20] * 80 + [250] * 20, 256), ([900], 512)]
)
def test_rows_hold_three_usual_documents_and_most_long_ones(lengths, slots, monkeypatch):
    monkeypatch.setattr(overflow, "list_document_lengths", lambda *_: lengths)
    chosen = row_lengths.choose_sequence_length(runs.make_config(), tiny.make_layout())
    assert chosen.value == slots


@pytest.mark.parametrize("mode", ["evaluate", "sample", "export"])
def test_modes_that_do_not_train_choose_nothing(mode, tmp_path):
    config = runs.make_config().unlock()
    config.choose = ("steps",)
    assert choices.choose(config.lock(), epath.Path(tmp_path), mode) == config


def test_a_resumed_run_keeps_its_values(tmp_path):
    folder = runs.copy_run(runs.trained_run()[1], tmp_path)
    config = workdir.load_config(folder)
    given = workdir.replace_values(config, {"steps": 1})
    given = workdir.replace_values(given, {"choose": ("steps",)})
    resumed = workdir.load_choices(given, folder)
    assert resumed.steps == config.steps == runs.STEPS
    assert resumed.choose == ()


def test_the_folder_of_a_codec_run_is_left_to_the_check_of_configurations(tmp_path):
    folder = epath.Path(tmp_path)
    workdir.save_config(folder, codec.get_config("kl"))
    (folder / workdir.CHECKPOINTS / "1").mkdir(parents=True)
    config = workdir.replace_values(own.get_config(), {"source.path": str(tmp_path)})
    assert workdir.load_choices(config, folder) == config
    with pytest.raises(UserError, match="another configuration"):
        workdir.check_config(folder, config)


def test_values_are_chosen_again_before_the_first_checkpoint(tmp_path, source, cli):
    cli(*command(tmp_path, source, "--mode=prepare"))
    before = load(tmp_path).data.text_slot_multiple
    write_captions(tmp_path / "other", [f"a b c d e f g h {number}" * 3 for number in range(60)])
    cli(*command(tmp_path, tmp_path / "other", "--mode=prepare"))
    assert load(tmp_path).data.text_slot_multiple > before


def test_unknown_keys_cannot_be_chosen(tmp_path):
    config = runs.make_config().unlock()
    config.choose = ("model.width",)
    with pytest.raises(UserError, match=r"choose=.*model.width"):
        choices.choose(config, epath.Path(tmp_path), "train")


def test_lengths_are_those_of_a_sample_spread_over_the_documents():
    layout, documents = tiny.make_layout(length=64), tiny.captions(9)
    texts = overflow.list_text_lengths(documents, layout, 100)
    assert len(texts) == 9
    assert overflow.list_text_lengths(documents, layout, 3) == texts[::3]
    assert overflow.list_document_lengths(documents, layout, 100) == [
        overflow.count_slots(layout, document.parts) for document in documents
    ]
