"""Tests of slurm.sh: its flags of sbatch, the job step that it starts, and when it is requeued."""

import os
import re

import pytest

from oneflow_jax import errors
from tests.launch.cloud import LAUNCH, make_failure
from tests.launch.test_scripts import ODD

SCRIPT = LAUNCH / "slurm.sh"
ARGUMENTS = ["--config=configs/gpu.py:1B-8", "--workdir=runs/1b"]
JOB = {"SLURM_JOB_ID": "71", "SLURM_JOB_NUM_NODES": "1", "PYTHON": "my-python"}
STEP = ["srun", "--cpu-bind=none", "--kill-on-bad-exit=0", "--wait=600"]
PROGRAM = ["my-python", "-m", "oneflow_jax.main"]


def run_job(cloud, *arguments, code=0, **variables):
    """Run the script as a job in which `srun` exits with `code`."""
    cloud.answer({"srun": [make_failure("", code)]})
    return cloud.run(SCRIPT, *arguments, **JOB | variables)


def test_one_node_runs_the_program_with_the_arguments(cloud):
    assert run_job(cloud, *ARGUMENTS, *ODD).returncode == 0
    assert cloud.calls() == [[*STEP, *PROGRAM, *ARGUMENTS, *ODD]]


def test_several_nodes_are_slices_of_the_mesh(cloud):
    assert run_job(cloud, *ARGUMENTS, SLURM_JOB_NUM_NODES="4").returncode == 0
    assert cloud.calls() == [[*STEP, *PROGRAM, "--config.mesh.slices=4", *ARGUMENTS]]


def test_a_stopped_run_returns_to_the_queue(cloud):
    assert (
        run_job(cloud, *ARGUMENTS, code=errors.EXIT_PREEMPTED).returncode == errors.EXIT_PREEMPTED
    )
    assert cloud.calls("scontrol") == [["scontrol", "requeue", "71"]]


@pytest.mark.parametrize("code", [0, 1, 130, 137])
def test_a_finished_or_failed_run_does_not(cloud, code):
    assert run_job(cloud, *ARGUMENTS, code=code).returncode == code
    assert cloud.calls("scontrol") == []


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (ARGUMENTS, {"SLURM_JOB_ID": ""}, "submit the script with sbatch"),
        ([], {}, "give the program's flags"),
    ],
)
def test_errors_are_reported_before_any_call(cloud, arguments, variables, message):
    done = run_job(cloud, *arguments, **variables)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert cloud.calls() == []


def test_help_is_the_comment_at_the_top_of_the_script(cloud):
    done = cloud.run("slurm.sh", "--help")
    assert done.returncode == 0
    assert "sbatch [FLAG...] launch/slurm.sh ARGUMENT..." in done.stdout
    assert "SBATCH" not in done.stdout
    assert not re.search(r"^ \w", done.stdout, re.MULTILINE)
    assert os.access(SCRIPT, os.X_OK)


def test_flags_of_sbatch_precede_all_commands():
    """Check that SLURM reads all flags, which it does only up to the first command."""
    lines = SCRIPT.read_text().splitlines()
    flags = [line for line in lines if line.startswith("#SBATCH ")]
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(line in lines[:first] for line in flags)
    values = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in flags)
    # The signal goes to the program only: with "B:", SLURM would send it to the script.
    name, _, seconds = values["signal"].partition("@")
    assert (name, int(seconds) >= 60) == ("TERM", True)
    assert "requeue" in values
    assert values["open-mode"] == "append"
    assert values["ntasks-per-node"] == "1"
