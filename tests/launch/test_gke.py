"""Tests of the Kubernetes files: the manifest and the image match each other and the program."""

import json
import math
import re
import runpy

import pytest
import yaml

from tests.launch.cloud import LAUNCH

ROOT = LAUNCH.parent
CHIPS_OF_A_HOST = {"tpu-v4-podslice": 4, "tpu-v5p-slice": 4}


@pytest.fixture
def jobset():
    return yaml.safe_load((LAUNCH / "gke/jobset.yaml").read_text())


@pytest.fixture
def job(jobset):
    (slices,) = jobset["spec"]["replicatedJobs"]
    return slices["template"]["spec"]


@pytest.fixture
def pod(job):
    return job["template"]["spec"]


def test_hosts_and_their_chips_are_the_topology(job, pod):
    nodes = pod["nodeSelector"]
    chips = math.prod(map(int, nodes["cloud.google.com/gke-tpu-topology"].split("x")))
    (container,) = pod["containers"]
    of_a_host = container["resources"]["limits"]["google.com/tpu"]
    assert of_a_host == CHIPS_OF_A_HOST[nodes["cloud.google.com/gke-tpu-accelerator"]]
    assert job["parallelism"] * of_a_host == chips
    assert job["completions"] == job["parallelism"]
    assert job["completionMode"] == "Indexed"


def test_the_configuration_fits_the_chips(job, pod):
    (container,) = pod["containers"]
    flags = dict(argument.removeprefix("--").split("=") for argument in container["args"])
    config = runpy.run_path(str(ROOT / flags["config"]))["get_config"]()
    chips = job["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    assert chips % config.mesh.fsdp == 0
    assert config.batch_size % chips == 0
    assert flags["workdir"].startswith("gs://")


def test_failed_pod_restarts_all_pods(jobset, job, pod):
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert jobset["kind"] == "JobSet"
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    # JobSet restarts all pods together; a job or pod restarted alone could not join the run.
    assert job["backoffLimit"] == 0
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_hosts_find_each_other_and_slices_do_not_share_nodes(jobset, pod):
    assert jobset["spec"]["network"]["enableDNSHostnames"] is True
    (pool,) = jobset["metadata"]["annotations"].values()
    assert pool == "cloud.google.com/gke-nodepool"
    assert "hostNetwork" not in pod


def lines(name):
    text = (LAUNCH / "gke" / name).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_runs_the_program_without_a_shell_between():
    (entry,) = [line for line in lines("Dockerfile") if line.startswith("ENTRYPOINT")]
    assert json.loads(entry.removeprefix("ENTRYPOINT")) == ["python", "-m", "oneflow_jax.main"]


def test_copied_files_exist_and_are_not_ignored():
    let_through = {line.removeprefix("!") for line in lines("Dockerfile.dockerignore")}
    taken = [line.split()[1] for line in lines("Dockerfile") if line.startswith("COPY")]
    assert len(taken) == 4
    for name in taken:
        assert (ROOT / name).exists()
        assert name in let_through
    for name in re.findall(r"-r (\S+)", " ".join(lines("Dockerfile"))):
        assert name in taken
