"""Tests of resume_pod.sh: it continues a run until its end, despite preemptions."""

import pytest

from tests.launch.cloud import NO_PAGE, NO_POD, NOTHING, SSH_FAILED, make_reply, remote
from tests.launch.test_scripts import ODD

STARTED = ["stop_run", "must_be_idle", "set_up", "must_be_idle", "start_run"]
CREATED = ["describe", "create", "describe"]
LOOKED = ["describe", "host_state"]


def make_host_replies(*states):
    """Return replies of two hosts: the first runs, and the second has the given states in turn."""
    log = "step 7: failed: an example of words: stopped"
    text = "oneflow on a: running\n{log}\noneflow on b: {state}\n{log}"
    return [make_reply(text.format(log=log, state=state)) for state in states]


def test_finished_run_creates_no_pod(cloud):
    cloud.answer({"samples.html": [NOTHING]})
    done = cloud.run("resume_pod.sh")
    assert done.returncode == 0
    assert cloud.calls() == [
        ["gcloud", "storage", "ls", "gs://my-bucket"],
        ["gcloud", "storage", "ls", "gs://my-bucket/runs/1b/samples.html"],
    ]
    assert "finished: gs://my-bucket/runs/1b/samples.html" in done.stdout


def test_loop_starts_without_a_pod_and_ends_with_the_page(cloud):
    cloud.answer(
        {
            "samples.html": [NO_PAGE, NO_PAGE, NO_PAGE, NOTHING],
            "describe": [NO_POD, NO_POD, make_reply("ACTIVE")],
            "; host_state": make_host_replies("running"),
        }
    )
    done = cloud.run("resume_pod.sh")
    assert done.returncode == 0, done.stderr
    assert cloud.verbs() == ["describe", *CREATED, *STARTED, *LOOKED, *LOOKED]


def test_preempted_pod_is_replaced_and_the_run_restarted(cloud):
    states = ["ACTIVE", "SUSPENDING", "SUSPENDED", "SUSPENDED"]
    cloud.answer(
        {
            "samples.html": [NO_PAGE] * 3 + [NOTHING],
            "describe": [*map(make_reply, states), NO_POD, make_reply("ACTIVE")],
            "; host_state": make_host_replies("running"),
        }
    )
    done = cloud.run("resume_pod.sh", *ODD, DELETE_WHEN_FINISHED="1")
    assert done.returncode == 0, done.stderr
    replaced = ["describe", "describe", "describe", "delete", *CREATED, *STARTED]
    assert cloud.verbs() == [*LOOKED, *replaced, "describe", "delete"]
    (start,) = [call for call in cloud.calls() if "ssh" in call and "; start_run" in remote(call)]
    cloud.forget()
    assert cloud.shell(remote(start)).returncode == 0
    assert cloud.calls()[-1][5:] == ODD


def test_restarted_host_resumes_the_run(cloud):
    cloud.answer(
        {
            "samples.html": [NO_PAGE, NOTHING],
            "describe": [make_reply("ACTIVE")],
            "; host_state": [make_reply("oneflow on a: idle\noneflow on b: idle")],
        }
    )
    assert cloud.run("resume_pod.sh").returncode == 0
    assert cloud.verbs() == [*LOOKED, *STARTED]


def test_failing_run_is_abandoned_after_three_starts(cloud):
    cloud.answer(
        {
            "samples.html": [NO_PAGE],
            "describe": [make_reply("ACTIVE")],
            "; host_state": make_host_replies("failed with code 1"),
        }
    )
    done = cloud.run("resume_pod.sh")
    assert done.returncode == 1
    assert "ended three times" in done.stderr
    assert cloud.verbs() == [*LOOKED, *STARTED] * 3 + LOOKED


def test_starts_are_counted_per_pod(cloud):
    lost = ["SUSPENDED", "SUSPENDED"]
    cloud.answer(
        {
            "samples.html": [NO_PAGE] * 7 + [NOTHING],
            "describe": [
                *map(make_reply, ["ACTIVE", "ACTIVE", "ACTIVE", *lost]),
                NO_POD,
                make_reply("ACTIVE"),
            ],
            "; host_state": [*make_host_replies(*["failed"] * 5), *make_host_replies("running")],
        }
    )
    done = cloud.run("resume_pod.sh")
    assert done.returncode == 0, done.stderr
    assert cloud.verbs().count("start_run") == 6


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (make_host_replies("stopped"), "the run was stopped, five times in a row"),
        ([SSH_FAILED], "the hosts cannot be reached, five times in a row"),
    ],
)
def test_stopped_or_unreachable_pod_is_left_alone(cloud, answers, message):
    cloud.answer(
        {"samples.html": [NO_PAGE], "describe": [make_reply("ACTIVE")], "; host_state": answers}
    )
    done = cloud.run("resume_pod.sh")
    assert done.returncode == 1
    assert message in done.stderr
    assert cloud.verbs() == LOOKED * 5


def test_stopped_run_may_precede_preemption(cloud):
    cloud.answer(
        {
            "samples.html": [NO_PAGE] * 3 + [NOTHING],
            "describe": [
                *map(make_reply, ["ACTIVE", "ACTIVE", "SUSPENDED", "SUSPENDED"]),
                NO_POD,
                make_reply("ACTIVE"),
            ],
            "; host_state": make_host_replies("stopped"),
        }
    )
    assert cloud.run("resume_pod.sh").returncode == 0
    assert cloud.verbs().count("start_run") == 1


def test_failed_start_is_judged_at_the_next_check(cloud):
    cloud.answer(
        {
            "samples.html": [NO_PAGE] * 2 + [NOTHING],
            "describe": [make_reply("ACTIVE")],
            "; host_state": [make_reply("oneflow on a: idle")],
            "; set_up": [SSH_FAILED, NOTHING],
        }
    )
    done = cloud.run("resume_pod.sh")
    assert done.returncode == 0
    assert cloud.verbs().count("set_up") == 2
    assert cloud.verbs().count("start_run") == 1


def test_failed_request_is_abandoned(cloud):
    cloud.answer({"samples.html": [NO_PAGE], "describe": [make_reply("FAILED")]})
    done = cloud.run("resume_pod.sh")
    assert done.returncode == 1
    assert "pod is FAILED" in done.stderr
    assert set(cloud.verbs()) == {"describe"}
