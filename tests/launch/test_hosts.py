"""Tests of the commands that the scripts send to hosts, by running them."""

import pytest

from oneflow_jax import errors
from tests.launch.cloud import RESOURCES, make_reply, remote
from tests.launch.test_scripts import ODD

PROGRAM = ["python", "-m", "oneflow_jax.main"]


def start_run(cloud, *arguments, **variables):
    """Run run_pod.sh and then the command that it sends to a host; return the host's calls."""
    assert cloud.run("run_pod.sh", *arguments, **variables).returncode == 0
    command = remote(cloud.calls()[-1])
    cloud.forget()
    done = cloud.shell(command)
    assert done.returncode == 0, done.stderr
    return cloud.calls()


def test_arguments_reach_the_program_intact(cloud):
    calls = start_run(cloud, *ODD, RUN="a 'run'", CONFIG="configs/digits.py:velocity")
    where = ["--config=configs/digits.py:velocity", "--workdir=gs://my-bucket/runs/a 'run'"]
    assert calls[-1] == [*PROGRAM, *where, *ODD]


def test_arguments_after_two_dashes_go_to_the_program(cloud):
    calls = start_run(cloud, "--", "--config.steps=3")
    assert calls[-1][5:] == ["--config.steps=3"]


def test_slices_are_passed_to_the_program_and_can_be_overridden(cloud):
    calls = start_run(cloud, "--config.mesh.slices=1", SLICES="4")
    assert calls[-1][5:] == ["--config.mesh.slices=4", "--config.mesh.slices=1"]


def test_the_compiler_s_flags_reach_the_program(cloud):
    flags = "--xla_a=true --xla_b='x $HOME'"
    (cloud.home / "oneflow_jax/.venv/run/bin/python").write_text(
        '#!/bin/sh\nprintf %s "$LIBTPU_INIT_ARGS" >"$HOME/flags"\n'
    )
    start_run(cloud, LIBTPU_INIT_ARGS=flags)
    assert (cloud.home / "flags").read_text() == flags


def test_run_is_a_service_with_sigterm_and_a_grace_period(cloud):
    calls = start_run(cloud)
    (service,) = [call for call in calls if call[0] == "systemd-run"]
    for option in (
        "--unit=oneflow",
        # Only the main process gets SIGTERM: it needs the data workers until it has saved.
        "--property=KillMode=mixed",
        "--property=TimeoutStopSec=600",
        "--property=LimitMEMLOCK=infinity",
        f"--property=StandardOutput=append:{cloud.home}/oneflow.log",
    ):
        assert option in service
    assert ["sudo", *service] in calls
    # `exec` replaces the shell, so that the program itself gets the signal.
    assert (cloud.home / "oneflow.command").read_text().splitlines()[-1].startswith("exec .venv")


def test_leftovers_of_a_failed_run_do_not_block_the_next(cloud):
    calls = start_run(cloud)
    names = [call[:2] for call in calls]
    assert names.index(["systemctl", "reset-failed"]) < names.index(
        ["systemd-run", "--unit=oneflow"]
    )


@pytest.mark.parametrize(
    ("state", "code"),
    [("active", 1), ("activating", 1), ("deactivating", 1), ("inactive", 0), ("failed", 0)],
)
def test_a_second_run_is_refused(cloud, state, code):
    cloud.run("run_pod.sh")
    command = remote(cloud.calls(*RESOURCES)[0])
    cloud.answer({"is-active": [make_reply(state) | {"code": 3 * (state != "active")}]})
    done = cloud.shell(command)
    assert done.returncode == code
    assert ("has a run already" in done.stderr) == bool(code)


@pytest.mark.parametrize(
    ("active", "code", "state"),
    [
        ("active", "0", "running"),
        ("deactivating", "0", "running"),
        ("failed", str(errors.EXIT_PREEMPTED), "stopped"),
        ("failed", "1", "failed with code 1"),
        ("inactive", "0", "idle"),
    ],
)
def test_host_state_is_reported(cloud, active, code, state):
    cloud.answer({"describe": [make_reply("ACTIVE")]})
    cloud.run("status_pod.sh")
    (command,) = [remote(call) for call in cloud.calls() if "ssh" in call]
    (cloud.home / "oneflow.log").write_text("step 1\nstep 2\n")
    cloud.answer({"ActiveState": [make_reply(active)], "ExecMainStatus": [make_reply(code)]})
    lines = cloud.shell(command).stdout.splitlines()
    assert lines[0].endswith(f": {state}")
    assert lines[1:] == ["step 2"]


@pytest.mark.parametrize("state", ["active", "deactivating", "inactive", "failed"])
def test_stop_stops_the_service_if_it_exists(cloud, state):
    cloud.run("stop_pod.sh")
    command = remote(cloud.calls()[0])
    cloud.answer({"is-active": [make_reply(state)]})
    assert cloud.shell(command).returncode == 0
    stops = cloud.calls("sudo", "systemctl", "stop", "oneflow")
    assert len(stops) == (state in ("active", "deactivating"))


def set_up(cloud, has_uv):
    cloud.run("setup_pod.sh", REPOSITORY="/my code/here", REVISION="v 1", PYTHON="3.12")
    command = remote(cloud.calls()[-1])
    cloud.forget()
    cloud.answer({"uv --version": [make_reply("uv 0.13.9 (of a day)" if has_uv else "uv 0.1.0")]})
    done = cloud.shell(command)
    assert done.returncode == 0, done.stderr
    return cloud.calls()


@pytest.mark.parametrize("has_uv", [True, False])
def test_setup_uses_the_configured_revision_and_python(cloud, has_uv):
    calls = set_up(cloud, has_uv)
    assert ["git", "fetch", "--quiet", "--depth=1", "/my code/here", "v 1"] in calls
    assert any(call[:2] == ["uv", "venv"] and "3.12" in call for call in calls)
    (install,) = [call for call in calls if call[:3] == ["uv", "pip", "install"]]
    assert install[-4:] == ["-r", "requirements.txt", "-r", "launch/requirements.txt"]
    assert len([call for call in calls if call[0] == "curl"]) == (not has_uv)
    assert calls[-1][:2] == ["python", "-c"]
    compile(calls[-1][2], "check", "exec")


def test_setup_failure_is_reported(cloud):
    cloud.run("setup_pod.sh")
    command = remote(cloud.calls()[-1])
    cloud.answer({"git fetch": [{"out": "", "error": "no such branch", "code": 128}]})
    assert cloud.shell(command).returncode != 0
    assert not any(call[:3] == ["uv", "pip", "install"] for call in cloud.calls())
