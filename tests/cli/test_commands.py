"""Tests of the program `oneflow`: commands, help, and names of configurations."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from oneflow_jax import __main__ as program
from oneflow_jax import main, shipped
from oneflow_jax.cli import commands, config_names
from oneflow_jax.cli import help as help_texts
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from tests import runs
from tests.pretrained import random_language_model


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Change to an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("quickstart", "quickstart"),
        ("quickstart:edit_flow", "quickstart-edit_flow"),
        ("digits:velocity", "digits-velocity"),
        ("codec:vq", "codec-vq"),
        ("tpu_v4:8B", "tpu_v4-8B"),
        ("own", "own"),
    ],
)
@pytest.mark.parametrize("form", ["--config={}", "-config={}", "--config {}"])
def test_configurations_have_names_in_every_folder(value, name, form, parse, elsewhere):
    assert parse(*form.format(value).split()).name == name


def test_the_file_of_a_configuration_is_that_of_its_name(parse, elsewhere):
    by_name = parse("--config=quickstart:mask_flow", "--config.steps=7")
    file = runs.REPOSITORY / "configs/quickstart.py"
    assert by_name.steps == 7
    assert parse(f"--config={file}:mask_flow", "--config.steps=7").to_json() == by_name.to_json()


def test_the_argument_of_a_name_is_checked(parse, elsewhere):
    with pytest.raises(UserError, match=r"giant.*150M, 1B, 3B, 8B"):
        parse("--config=tpu_v4:giant")


@pytest.mark.parametrize(
    ("value", "suggestion"),
    [
        ("quikstart", "--config=quickstart"),
        ("Quickstart:mask_flow", "--config=quickstart"),
        ("digit", "--config=digits"),
        ("tpuv4:1B", "--config=tpu_v4"),
        ("configs/quickstart.py", "--config=quickstart"),
        ("configs/quikstart.py:mask_flow", "--config=quickstart"),
        ("mine", "--config=mine.py"),
        ("mien.py", "--config=mine.py"),
        ("folder/exprt.py", "--config=folder/expert.py"),
    ],
)
def test_a_mistyped_configuration_is_answered_with_the_nearest(value, suggestion, parse, elsewhere):
    (elsewhere / "folder").mkdir()
    for name in ("mine.py", "folder/expert.py"):
        (elsewhere / name).write_text("def get_config(): pass\n")
    with pytest.raises(UserError) as error:
        parse(f"--config={value}")
    message = str(error.value)
    assert message.startswith(f"--config={value}: ")
    assert f"Did you mean {suggestion}?" in message
    assert "compare" in message  # The message lists the names of the configurations.


@pytest.mark.parametrize("value", ["", "common", "tpu", "__init__", "xyzzy", "~", "configs"])
def test_invalid_configuration_values_are_refused(value, parse, elsewhere):
    with pytest.raises(UserError, match=re.escape(f"--config={value}: ") + ".*quickstart"):
        parse(f"--config={value}")


@pytest.mark.parametrize("line", ["import configs.common", "from configs import common"])
def test_file_that_imports_configs_gets_advice(line, parse, elsewhere, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(runs.REPOSITORY))])
    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    (elsewhere / "mine.py").write_text(f"{line}\n")
    with pytest.raises(UserError, match=r"from oneflow_jax\.configs import common"):
        parse("--config=mine.py")


def test_every_mode_has_a_command():
    modes = {command.mode for command in commands.COMMANDS.values()} - {None}
    assert modes == set(main.MODE._flagvalues["mode"].parser.enum_values)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_help_of_a_command_names_its_flags_and_gives_examples(name):
    text = help_texts.format_help(name)
    assert max(map(len, text.splitlines())) <= 100
    assert f"\n    oneflow {name}" in text
    for flag in commands.COMMANDS[name].flags:
        assert re.search(rf"^    (--)?{re.escape(flag)}  +[A-Z<]", text, re.MULTILINE), flag


@pytest.mark.parametrize("name", [n for n, c in commands.COMMANDS.items() if c.mode])
def test_examples_of_commands_can_be_parsed(name, parse, monkeypatch, tmp_path):
    monkeypatch.chdir(runs.REPOSITORY)
    model = str(random_language_model.write_model(tmp_path / "model"))
    for example in commands.COMMANDS[name].examples:
        words = [word.strip('"') for word in re.findall(r'[^\s"]*"[^"]*"|\S+', example)]
        words = [re.sub(r'="(.*)', r"=\1", word) for word in words]
        words = [model if word == "MODEL" else word for word in words]
        line = commands.make_arguments(name, words)
        if not any(map(config_names.FLAG.match, line)):
            line.insert(0, "--config=quickstart")  # The run in --workdir does not exist.
        parse(*line)


def test_general_help_lists_every_command_once():
    lines = help_texts.format_help().splitlines()
    for name, command in commands.COMMANDS.items():
        assert f"    {name.ljust(8)}  {command.summary}" in lines


def test_the_list_of_configurations_is_that_of_the_folder():
    files = {path.stem for path in (runs.REPOSITORY / "configs").glob("*.py")}
    assert set(config_names.list_names()) == files - {"__init__", "common", "model_sizes", "tpu"}
    text = help_texts.format_configurations()
    assert all(
        config_names.summarize(name).split()[-1] in text for name in config_names.list_names()
    )


@pytest.mark.parametrize(
    ("arguments", "message_parts"),
    [
        (["tran"], ["tran: ", "Did you mean oneflow train?"]),
        (["smaple", "--prompt=<image>"], ["Did you mean oneflow sample?"]),
        (["evalute"], ["Did you mean oneflow evaluate?"]),
        (["config"], ["Did you mean oneflow configs?"]),
        (["help", "exprot"], ["Did you mean oneflow export?"]),
        (["Train", "--help"], ["Did you mean oneflow train?"]),
        (["xyzzy"], ["xyzzy: ", "train, finetune"]),
        (["--config=quickstart"], ["command is missing", "oneflow train --config=quickstart"]),
        (["train", "--mode=sample"], ["--mode", "oneflow train"]),
        (["configs", "quikstart"], ["Did you mean --config=quickstart?"]),
    ],
)
def test_mistyped_commands(arguments, message_parts, elsewhere):
    with pytest.raises(SystemExit) as stopped:
        program.main(arguments)
    message = str(stopped.value)
    assert message.startswith("error: ")
    assert all(part in message for part in message_parts), message


def call(*arguments, cwd):
    """Run `python -m oneflow_jax`; return the process and the seconds of processor time."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "oneflow_jax", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(runs.REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    after = os.times()
    used = after.children_user + after.children_system
    return done, used - before.children_user - before.children_system


@pytest.mark.parametrize(
    ("arguments", "returncode"),
    [([], 0), (["--help"], 0), (["sample", "--help"], 0), (["configs"], 0), (["tran"], 1)],
)
def test_help_and_typing_mistakes_are_answered_in_a_second(arguments, returncode, tmp_path):
    done, seconds = call(*arguments, cwd=tmp_path)
    assert done.returncode == returncode, done.stderr
    assert seconds < 1


@pytest.mark.parametrize("arguments", [["--help"], ["configs"], ["configs", "own"]])
def test_output_that_is_not_read_to_its_end(arguments, tmp_path):
    """Check `oneflow configs | head -1`, where `head` closes the pipe."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "oneflow_jax", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(runs.REPOSITORY)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_command_line_modules_do_not_import_jax():
    code = "import sys, oneflow_jax.__main__, oneflow_jax.cli.help; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=runs.REPOSITORY, check=True)


LAZY_LIBRARIES = {"flax", "optax", "orbax", "grain", "tensorflow_datasets", "sklearn", "scipy"}
LAZY_LIBRARIES |= {"pandas", "matplotlib", "diffrax", "clu", "PIL"}


def test_main_imports_slow_libraries_only_when_a_mode_needs_them():
    code = "import sys, oneflow_jax.main; print(*{name.partition('.')[0] for name in sys.modules})"
    names = subprocess.check_output([sys.executable, "-c", code], cwd=runs.REPOSITORY, text=True)
    assert LAZY_LIBRARIES & set(names.split()) == set()


@pytest.mark.parametrize(("command", "key"), [("finetune", "init_from"), ("compare", "models")])
def test_commands_that_need_a_key(command, key, tmp_path):
    done, _ = call(command, "--config=quickstart", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {key} is empty or missing")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("docs", "--config=finetune:shipped --config.source.path=docs"),
        ("docs --from=runs/a", "--config=finetune:runs/a --config.source.path=docs"),
        ("docs --from runs/a --config.steps=5 --workdir runs/b",
         "--config=finetune:runs/a --config.source.path=docs --config.steps=5 --workdir runs/b"),
        ("docs --minutes=5",
         "--config=finetune:shipped --config.source.path=docs --config.minutes=5"),
        ("--workdir=runs/b", "--workdir=runs/b"),
        ("--config=digits --config.init_from=a", "--config=digits --config.init_from=a"),
    ],
)  # fmt: skip
def test_folder_and_start_model_become_keys(arguments, expected):
    line = commands.make_arguments("finetune", arguments.split())
    assert line == ["--mode=train", *expected.split()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--from=shipped", "folder of your documents is missing"),
        ("docs --from", "--from: its value is missing"),
        ("docs --from --workdir=a", "--from: its value is missing"),
        ("docs --config=digits", "--config: it excludes FOLDER"),
    ],
)
def test_mistyped_arguments_of_finetune(arguments, message):
    with pytest.raises(UserError, match=message):
        commands.make_arguments("finetune", arguments.split())


def test_the_folder_of_a_language_model_is_the_argument_of_its_configuration():
    line = commands.make_arguments("import", ["smollm2", "--output=out"])
    assert line == ["--mode=import", "--config=language_model:smollm2", "--output=out"]
    with pytest.raises(UserError, match="folder of the language model is missing"):
        commands.make_arguments("import", ["--output=out"])


def test_a_finetuning_configuration_is_found_by_name(parse, elsewhere):
    config = parse(*commands.make_arguments("finetune", ["docs"])[1:])
    assert config.name == "finetune"
    assert config.source.path == str(elsewhere / "docs")
    assert (
        config.model.width
        == json.loads((shipped.PRETRAINED / "config.json").read_text())["model"]["width"]
    )


def test_all_keys_of_a_configuration_are_shown(tmp_path, parse):
    done, _ = call("configs", "quickstart:edit_flow", "--config.steps=5", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert "steps = 5" in lines
    assert "paradigm.name = edit_flow" in lines
    expected = workdir.flatten_config(parse("--config=quickstart:edit_flow"))
    assert [line.partition(" = ")[0] for line in lines] == list(expected)


def test_the_copy_of_the_shipped_model_is_kept_and_never_replaces_another(tmp_path):
    target = tmp_path / "runs/pretrained"
    shipped.copy_to(str(target))
    files = {name: (target / name).read_bytes() for name in shipped.FILES}
    assert files == {name: (shipped.PRETRAINED / name).read_bytes() for name in shipped.FILES}
    times = [(target / name).stat().st_mtime_ns for name in shipped.FILES]
    shipped.copy_to(str(target))
    assert times == [(target / name).stat().st_mtime_ns for name in shipped.FILES]
    (target / "weights.safetensors").write_bytes(b"another model")
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        shipped.copy_to(str(target))
    assert (target / "weights.safetensors").read_bytes() == b"another model"


def test_run_folder_is_not_replaced_by_the_copy(tmp_path):
    folder = pathlib.Path(shutil.copytree(runs.trained_run()[1], tmp_path / "pretrained"))
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(UserError, match=r"config\.json"):
        shipped.copy_to(str(folder))
    assert sorted(path.name for path in folder.iterdir()) == before
