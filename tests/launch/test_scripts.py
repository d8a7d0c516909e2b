"""Tests of the exact gcloud calls of the scripts."""

import pytest

from tests.launch.cloud import (
    LAUNCH,
    NO_PAGE,
    NO_POD,
    NOTHING,
    PLACE,
    RESOURCES,
    SCRIPTS,
    SSH_FAILED,
    make_failure,
    make_reply,
    remote,
)

NEEDS = {
    "create_pod.sh": "PROJECT",
    "delete_pod.sh": "PROJECT",
    "resume_pod.sh": "PROJECT BUCKET REPOSITORY",
    "run_pod.sh": "PROJECT BUCKET",
    "setup_pod.sh": "PROJECT REPOSITORY",
    "status_pod.sh": "PROJECT BUCKET",
    "stop_pod.sh": "PROJECT",
    "watch_pod.sh": "PROJECT",
}
ODD = [
    "--prompt=a \"big\" 'dog': $HOME; <image> & more",
    "--config.name=*\\",
    *["--prompt=line\nbreak", "--prompt=ünï", "--prompt="],
]


@pytest.mark.parametrize(
    ("variables", "flags"),
    [
        ({}, "--accelerator-type=v4-64 --runtime-version=tpu-ubuntu2204-base --node-id=pod"),
        (
            {"ACCELERATOR": "v5litepod-16", "SPOT": "1", "CONFIG": "configs/tpu_v5e.py"},
            "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --node-id=pod "
            "--spot",
        ),
        (
            {
                "ACCELERATOR": "v5p-8",
                "RESERVED": "1",
                "VALID_UNTIL": "6h",
                "CONFIG": "configs/tpu_v5p.py",
            },
            "--accelerator-type=v5p-8 --runtime-version=v2-alpha-tpuv5 --node-id=pod --reserved "
            "--valid-until-duration=6h",
        ),
        (
            {"ACCELERATOR": "v6e-256", "SLICES": "2", "CONFIG": "configs/tpu_v6e.py"},
            "--accelerator-type=v6e-256 --runtime-version=v2-alpha-tpuv6e --node-count=2 "
            "--node-prefix=pod",
        ),
        (
            {"VERSION": "mine", "CREATE_FLAGS": "--network=n --service-account=s@x"},
            "--network=n --service-account=s@x --accelerator-type=v4-64 --runtime-version=mine "
            "--node-id=pod",
        ),
    ],
)
def test_create_pod_uses_the_variables(cloud, variables, flags):
    cloud.answer({"describe": [NO_POD, make_reply("ACTIVE")]})
    done = cloud.run("create_pod.sh", **variables)
    assert done.returncode == 0, done.stderr
    expected = [*RESOURCES, "create", "pod", *PLACE, *flags.split()]
    assert cloud.calls(*RESOURCES, "create") == [expected]


def test_creation_waits_until_the_pod_is_active(cloud):
    states = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "FAILED"]
    cloud.answer({"describe": [NO_POD, *map(make_reply, states)]})
    done = cloud.run("create_pod.sh")
    assert done.returncode == 0, done.stderr
    assert cloud.verbs() == ["describe", "create", "describe", "describe", "describe"]
    assert cloud.calls()[0] == [
        *[*RESOURCES, "describe", "pod", *PLACE],
        "--format=value(state.state)",
    ]


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDING", "SUSPENDED"])
def test_failed_creation_shows_the_reason(cloud, state):
    cloud.answer(
        {"--format": [NO_POD, make_reply(state)], "describe": [make_reply("no quota for v4")]}
    )
    done = cloud.run("create_pod.sh")
    assert done.returncode == 1
    assert f"error: pod is {state}" in done.stderr
    # The description is printed to stderr, before the error message.
    assert "no quota for v4" in done.stderr


def test_creation_stops_at_the_timeout(cloud):
    cloud.answer({"describe": [NO_POD, make_reply("WAITING_FOR_RESOURCES")]})
    done = cloud.run("create_pod.sh", TIMEOUT="3")
    assert done.returncode == 1
    assert "pod is WAITING_FOR_RESOURCES after 3 seconds" in done.stderr
    assert cloud.verbs().count("describe") > 2


def test_pending_request_is_waited_for_and_not_repeated(cloud):
    cloud.answer({"describe": [make_reply("WAITING_FOR_RESOURCES"), make_reply("ACTIVE")]})
    assert cloud.run("create_pod.sh").returncode == 0
    assert cloud.verbs() == ["describe", "describe"]


NO_NAME = "ERROR: gcloud crashed (ConnectionError): Temporary failure in name resolution"
REFRESH = (
    "ERROR: There was a problem refreshing your current auth tokens: HTTPSConnectionPool(host="
    "'oauth2.googleapis.com'): Max retries exceeded. Please run: gcloud auth login"
)


@pytest.mark.parametrize("error", [NO_NAME, REFRESH, "ERROR: UNAVAILABLE: try later"])
def test_failing_connection_is_reported_and_retried(cloud, error):
    cloud.answer({"describe": [make_failure(error)]})
    done = cloud.run("create_pod.sh")
    assert done.returncode == 1
    assert done.stderr.count(error) == 2
    assert done.stderr.startswith(f"{error} (retrying every 0 seconds)\n")
    assert f"error: gcloud cannot get the state of pod: {error}" in done.stderr
    assert cloud.verbs() == ["describe"] * 5


@pytest.mark.parametrize(
    "error",
    [
        "PERMISSION_DENIED: Permission denied on 'locations/us-central2-b' (or it may not exist).",
        "INVALID_ARGUMENT: the deadline timed out",
        "NOT_FOUND: Location us-central2-b is not found",
        "NOT_FOUND: The project 'my-project' was not found",
        "UNAUTHENTICATED: Request had invalid authentication credentials.",
        "You do not currently have an active account selected. Please run: gcloud auth login",
        "Reauthentication failed. cannot prompt during non-interactive execution.",
        "something else",
    ],
)
@pytest.mark.parametrize("script", ["create_pod.sh", "delete_pod.sh"])
def test_permanent_error_is_reported_and_not_treated_as_a_missing_pod(cloud, script, error):
    cloud.answer({"describe": [make_failure(f"ERROR: {error}")]})
    done = cloud.run(script)
    assert done.returncode == 1
    assert done.stderr == f"error: gcloud cannot get the state of pod: ERROR: {error}\n"
    assert cloud.verbs() == ["describe"]


def test_a_connection_may_fail_once(cloud):
    cloud.answer({"describe": [make_failure(NO_NAME), make_reply("ACTIVE")]})
    assert cloud.run("create_pod.sh").returncode == 0


@pytest.mark.parametrize("script", ["run_pod.sh", "resume_pod.sh"])
@pytest.mark.parametrize("bucket", ["gs://my-bucket", "gs://my-bucket/a/b/"])
def test_bucket_is_checked_before_a_pod_is_created(cloud, script, bucket):
    cloud.answer({"storage": [make_failure("ERROR: gs://my-bucket not found: 404.")]})
    done = cloud.run(script, BUCKET=bucket)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: BUCKET={bucket.rstrip('/')}: you cannot list gs://my-bucket;"
    )
    assert done.stderr.endswith("gs://my-bucket not found: 404.\n")
    assert cloud.calls() == [["gcloud", "storage", "ls", "gs://my-bucket"]]


def test_empty_bucket_is_accepted(cloud):
    cloud.answer({"storage": [NO_PAGE]})
    assert cloud.run("run_pod.sh").returncode == 0
    assert cloud.verbs() == ["must_be_idle", "start_run"]


@pytest.mark.parametrize("script", ["status_pod.sh", "resume_pod.sh"])
def test_only_a_missing_page_means_unfinished(cloud, script):
    error = "ERROR: (gcloud.storage.ls) HTTPError 403: no storage.objects.list access"
    cloud.answer({"samples.html": [make_failure(error)], "describe": [make_reply("WAITING")]})
    done = cloud.run(script)
    assert done.returncode == 1
    page = "gs://my-bucket/runs/1b/samples.html"
    assert f"error: gcloud cannot check whether {page} exists: {error}\n" in done.stderr
    assert "not finished" not in done.stdout
    assert "create" not in cloud.verbs()


def test_page_check_is_retried_after_a_connection_failure(cloud):
    cloud.answer({"samples.html": [make_failure(NO_NAME), NOTHING]})
    assert cloud.run("resume_pod.sh").returncode == 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_all_missing_variables_are_listed(cloud, script):
    done = cloud.run(script, PROJECT="", BUCKET="", REPOSITORY="")
    assert done.returncode == 1
    assert done.stderr == (f"error: set {NEEDS[script]} in launch/pod.env or in the environment.\n")
    assert cloud.calls() == []


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        (["create_pod.sh"], {"SPOT": "1", "RESERVED": "1"}, "SPOT and RESERVED"),
        (["create_pod.sh", "--sopt"], {}, "unknown argument --sopt"),
        (["stop_pod.sh", "now"], {}, "unknown argument now"),
        (["watch_pod.sh", "first"], {}, "first: give a number, or all"),
        (["watch_pod.sh", "0", "0", "0"], {}, "unknown argument 0"),
    ],
)
def test_errors_are_reported_before_any_call(cloud, words, variables, message):
    done = cloud.run(*words, **variables)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert cloud.calls() == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_comment_at_the_top_of_the_script(cloud, script):
    done = cloud.run(script, "--help", PROJECT="")
    assert done.returncode == 0
    second = (LAUNCH / script).read_text().splitlines()[1]
    assert done.stdout.splitlines()[0] == second.removeprefix("# ")
    assert f"launch/{script} [--dry-run]" in done.stdout
    assert "set -euo" not in done.stdout
    assert cloud.calls() == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_calls_nothing(cloud, script):
    done = cloud.run(script, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "gcloud " in done.stdout
    assert cloud.calls() == []


def test_dry_run_prints_the_exact_commands(cloud):
    assert cloud.run("run_pod.sh", *ODD, NAME="pod").returncode == 0
    calls = cloud.calls()
    cloud.forget()
    for line in cloud.run("run_pod.sh", *ODD, "--dry-run").stdout.splitlines():
        cloud.shell(line)
    assert cloud.calls() == calls
    assert len(calls) == 3


def test_a_run_is_started_on_all_hosts_of_all_slices(cloud):
    assert cloud.run("run_pod.sh", SLICES="2", SSH_FLAGS="--internal-ip").returncode == 0
    assert cloud.verbs() == ["must_be_idle", "start_run"]
    for call in cloud.calls(*RESOURCES):
        where = ["--node=all", "--worker=all", "--batch-size=all", "--internal-ip"]
        assert call[:-1] == [*RESOURCES, "ssh", "pod", *PLACE, *where]


def test_no_host_starts_if_one_has_a_run(cloud):
    cloud.answer({"; must_be_idle": [SSH_FAILED]})
    assert cloud.run("run_pod.sh").returncode != 0
    assert cloud.run("setup_pod.sh").returncode != 0
    assert cloud.verbs() == ["must_be_idle", "must_be_idle"]


@pytest.mark.parametrize(
    ("places", "flags"),
    [
        ([], ["--node=0", "--worker=0"]),
        (["3"], ["--node=0", "--worker=3"]),
        (["all"], ["--node=0", "--worker=all"]),
        (["7", "1"], ["--node=1", "--worker=7"]),
        (["all", "all"], ["--node=all", "--worker=all"]),
    ],
)
def test_logs_are_followed_on_the_selected_host(cloud, places, flags):
    assert cloud.run("watch_pod.sh", *places).returncode == 0
    (call,) = cloud.calls()
    assert call[8:10] == flags
    assert remote(call).endswith("; follow 50")


def test_status_tells_pod_hosts_and_page(cloud):
    cloud.answer(
        {
            "storage": [NO_PAGE],
            "describe": [make_reply("ACTIVE")],
            "host_state": [make_reply("oneflow on h: running")],
        }
    )
    done = cloud.run("status_pod.sh", RUN="mine")
    assert done.returncode == 0
    assert "oneflow on h: running" in done.stdout
    assert "not finished: no gs://my-bucket/runs/mine/samples.html" in done.stdout
    cloud.answer({"storage": [NOTHING], "describe": [NO_POD]})
    done = cloud.run("status_pod.sh", RUN="mine")
    assert done.stdout.startswith("finished: gs://my-bucket/runs/mine/samples.html")
    assert "NONE" in done.stderr


def test_delete_pod_deletes_request_and_machines(cloud):
    cloud.answer({"describe": [make_reply("ACTIVE")]})
    assert cloud.run("delete_pod.sh").returncode == 0
    assert cloud.calls()[1:] == [[*RESOURCES, "delete", "pod", *PLACE, "--force", "--quiet"]]


@pytest.mark.parametrize(
    "answer", [NO_POD, make_failure("NOT_FOUND: Requested entity was not found.")]
)
def test_missing_pod_is_not_deleted_again(cloud, answer):
    cloud.answer({"describe": [answer]})
    done = cloud.run("delete_pod.sh")
    assert done.returncode == 0
    assert done.stdout == "pod: there is no such pod in us-central2-b\n"
    assert cloud.verbs() == ["describe"]
