"""Tests that invalid arguments give a one-line error before any command is called."""

import re
import shlex

import pytest

from oneflow_jax import main
from tests.launch.cloud import SCRIPTS
from tests.launch.test_pages import LINES

RENT = ["create_pod.sh", "resume_pod.sh"]
START = ["run_pod.sh", "resume_pod.sh"]
TRAIN = sorted({*RENT, *START})
PROGRAM = {flag.name: flag for flag in main.flags.FLAGS.get_key_flags_for_module(main)}


def read_error(cloud, script, *arguments, **variables):
    """Return the script's error message, which is one line; no other command may be called."""
    done = cloud.run(script, *arguments, **variables)
    assert cloud.calls() == []
    assert done.stdout == ""
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.parametrize("script", START)
@pytest.mark.parametrize(
    "argument",
    [
        "--dryrun",
        "--dry_run",
        "--dry-run=1",
        "-n",
        "--confg.steps=3",
        "--config.steps",
        "--config.=3",
        "-config.steps=3",
        "--steps=3",
        "--prompt",
        "--noconfig.keep_compiled",
        "steps=3",
        "",
        "two\nlines",
    ],
)
def test_unknown_arguments_are_refused(cloud, script, argument):
    line = read_error(cloud, script, "--config.steps=3", argument)
    assert "unknown argument" in line
    assert "--dry-run" in line
    assert "--config.KEY=VALUE" in line


@pytest.mark.parametrize("script", START)
def test_arguments_after_two_dashes_are_checked(cloud, script):
    assert "unknown argument --dry-run" in read_error(cloud, script, "--", "--dry-run")


@pytest.mark.parametrize("script", START)
@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ("--workdir=gs://other/runs/1b", "BUCKET and RUN"),
        ("--config=configs/digits.py", "CONFIG"),
    ],
)
def test_flags_of_the_scripts_are_refused(cloud, script, argument, instead):
    assert read_error(cloud, script, argument) == f"{argument}: set {instead} instead."


@pytest.mark.parametrize("name", sorted({*PROGRAM} - {"workdir"}))
def test_flags_of_the_program_are_accepted(cloud, name):
    for value in getattr(PROGRAM[name].parser, "enum_values", ["x"]):
        done = cloud.run("run_pod.sh", "--dry-run", f"--{name}={value}")
        assert done.returncode == 0, done.stderr


def test_unknown_mode_is_refused(cloud):
    assert read_error(cloud, "run_pod.sh", "--mode=trian").startswith(
        "--mode=trian: give one of train,"
    )


@pytest.mark.parametrize(
    "argument", ["--mode=sample", "--output=x", "--topology=v4-8", "--program=train"]
)
def test_resume_pod_accepts_only_training(cloud, argument):
    assert "launch/run_pod.sh" in read_error(cloud, "resume_pod.sh", argument)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_checks_its_values(cloud, script):
    assert read_error(cloud, script, POLL="x") == "POLL=x: give whole seconds, such as 3600."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPOT", "yes"),
        ("SPOT", "00"),
        ("RESERVED", "true"),
        ("DRY_RUN", "no"),
        ("DELETE_WHEN_FINISHED", "2"),
        ("TIMEOUT", "6h"),
        ("TIMEOUT", "abc"),
        ("TIMEOUT", "08"),
        ("POLL", "x"),
        ("POLL", "0.5"),
        ("POLL", "-1"),
        ("SLICES", "two"),
        ("SLICES", "0"),
        ("NAME", "my pod"),
        ("NAME", "$HOME"),
        ("NAME", "My_Pod"),
        ("NAME", "4pods"),
        ("NAME", "pod-"),
        ("NAME", "ünï"),
        ("NAME", "p" * 64),
        ("ZONE", "us-central2"),
        ("ZONE", "mars-1"),
        ("ZONE", "us-central2-b,us-east1-d"),
        ("BUCKET", "my-bucket"),
        ("BUCKET", "gs://"),
        ("BUCKET", "gs:///x"),
        ("BUCKET", "gs://my bucket"),
        ("BUCKET", "gs://My-Bucket"),
        ("BUCKET", "gs://my-bucket/a b"),
        ("BUCKET", "gs://my-bucket//a"),
    ],
)
def test_impossible_values_are_refused(cloud, name, value):
    line = read_error(cloud, "stop_pod.sh", **{name: value})
    quoted = cloud.shell(f"printf %q {shlex.quote(value)}").stdout
    assert line.startswith(f"{name}={quoted}: ")


@pytest.mark.parametrize("script", TRAIN)
def test_pod_and_configuration_are_checked_by_scripts_that_use_them(cloud, script):
    assert read_error(cloud, script, ACCELERATOR="v4-65").startswith("ACCELERATOR=v4-65: ")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATOR": "v4-65"}, "ACCELERATOR=v4-65: "),
        ({"ACCELERATOR": "v4-abc"}, "ACCELERATOR=v4-abc: "),
        ({"ACCELERATOR": "v4-0"}, "ACCELERATOR=v4-0: "),
        ({"ACCELERATOR": "v4"}, "ACCELERATOR=v4: "),
        ({"ACCELERATOR": "v5litepod-24"}, "ACCELERATOR=v5litepod-24: "),
        ({"ACCELERATOR": "v9-8", "VERSION": "mine"}, "ACCELERATOR=v9-8: "),
        ({"ACCELERATOR": "v5e-256"}, "ACCELERATOR=v5e-256: write it as v5litepod-256"),
        ({"CONFIG": "configs/nothere.py"}, "CONFIG=configs/nothere.py: "),
        ({"CONFIG": "configs"}, "CONFIG=configs: "),
        ({"CONFIG": "configs/tpu_v4.py:150m"}, "CONFIG=configs/tpu_v4.py:150m: "),
        ({"ACCELERATOR": "v5litepod-256"}, "CONFIG=configs/tpu_v4.py is for v4, but "),
        ({"ACCELERATOR": "v5p-64"}, "CONFIG=configs/tpu_v4.py is for v4, but "),
        ({"ACCELERATOR": "v2-8"}, "CONFIG=configs/tpu_v4.py is for v4, but "),
        (
            {"CONFIG": "configs/tpu_v5e.py:8B"},
            "CONFIG=configs/tpu_v5e.py:8B is for v5litepod, but ",
        ),
        ({"CONFIG": "configs/tpu_v6e.py"}, "CONFIG=configs/tpu_v6e.py is for v6e, but "),
    ],
)
def test_mismatched_pod_and_configuration_are_refused(cloud, variables, message):
    assert read_error(cloud, "create_pod.sh", "--dry-run", **variables).startswith(message)


@pytest.mark.parametrize(
    ("accelerator", "config"),
    [
        ("v4-8", "configs/tpu_v4.py:150M"),
        ("v5litepod-1", "configs/tpu_v5e.py:150M"),
        ("v5litepod-256", "configs/tpu_v5e.py:8B"),
        ("v5litepod-64", "configs/tpu_v5e.py:1B,own"),
        ("v5p-128", "configs/tpu_v5p.py:8B"),
        ("v6e-64", "configs/tpu_v6e.py"),
        ("v3-32", "configs/digits.py:velocity"),
    ],
)
def test_matching_pod_and_configuration_are_accepted(cloud, accelerator, config):
    done = cloud.run("create_pod.sh", "--dry-run", ACCELERATOR=accelerator, CONFIG=config)
    assert done.returncode == 0, done.stderr


def test_pod_is_deleted_for_any_configuration(cloud):
    for script in ("delete_pod.sh", "stop_pod.sh"):
        done = cloud.run(script, "--dry-run", ACCELERATOR="v9-8", CONFIG="nothere.py")
        assert done.returncode == 0, done.stderr


def test_zero_means_no(cloud):
    no = {"SPOT": "0", "RESERVED": "0", "DRY_RUN": "0", "DELETE_WHEN_FINISHED": "0"}
    done = cloud.run("create_pod.sh", "--dry-run", **no)
    assert done.returncode == 0, done.stderr
    assert "--spot" not in done.stdout
    assert "--reserved" not in done.stdout
    assert cloud.run("resume_pod.sh", **no).returncode == 0
    assert cloud.calls()[-1][:3] == ["gcloud", "storage", "ls"]


@pytest.mark.parametrize("bucket", ["gs://my-bucket/", "gs://my-bucket//"])
def test_trailing_slash_of_the_bucket_is_removed(cloud, bucket):
    done = cloud.run("run_pod.sh", "--dry-run", BUCKET=bucket)
    assert "--workdir=gs://my-bucket/runs/1b" in done.stdout.replace("\\", "")


def test_existing_zones_and_names_are_accepted(cloud):
    for zone in ("us-central2-b", "europe-west4-a", "northamerica-northeast1-c", "us-south1-ai1b"):
        assert cloud.run("stop_pod.sh", "--dry-run", ZONE=zone).returncode == 0
    for name in ("a", "my-pod-2", "p" * 63):
        assert cloud.run("stop_pod.sh", "--dry-run", NAME=name).returncode == 0


@pytest.mark.parametrize("line", [line for line in LINES if "launch/" in line])
def test_readme_exports_variables_of_several_scripts(line):
    shared = {"PROJECT", "BUCKET", "ZONE", "NAME", "ACCELERATOR", "SLICES", "CONFIG", "RUN"}
    before = line.partition("launch/")[0]
    assert not shared & set(re.findall(r"\b([A-Z]+)=", before))
