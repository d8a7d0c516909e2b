"""Tests of the scripts' usage texts and of the documentation about them."""

import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from oneflow_jax.configs import tpu_v4
from tests.launch.cloud import LAUNCH, SCRIPTS, VARIABLES

README = (LAUNCH / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]


def command(line):
    """Split a line into words, without leading assignments of variables."""
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    return words


def test_shellcheck_finds_nothing():
    program = os.path.join(os.path.dirname(sys.executable), "shellcheck")
    files = sorted(path.name for path in LAUNCH.glob("*.sh"))
    assert {*SCRIPTS, "pod.sh", "checks.sh", "on_host.sh", "slurm.sh"} == {*files}
    done = subprocess.run(
        [program, *files, "pod.env"], cwd=LAUNCH, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_short_and_can_be_run(script):
    assert len((LAUNCH / script).read_text().splitlines()) <= 60
    assert os.access(LAUNCH / script, os.X_OK)


def iter_script_lines():
    """Yield each line that runs a script, with the exports above it in its code block."""
    for block in BLOCKS:
        exports = []
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("export "):
                exports.append(line.partition("#")[0])
            if "launch/" in line and ".sh" in line:
                yield pytest.param("; ".join(exports) or ":", line, id=line)


@pytest.mark.parametrize(("above", "line"), list(iter_script_lines()))
def test_readme_commands_pass_a_dry_run(cloud, above, line):
    assert command(line)[0].removeprefix("launch/") in SCRIPTS
    exports = "; ".join(f"export {name}={value}" for name, value in VARIABLES.items())
    code = line.partition("#")[0].strip()
    done = cloud.shell(f"cd {LAUNCH.parent}; {exports}; {above}; {code} --dry-run")
    assert done.returncode == 0, done.stderr
    assert "gcloud " in done.stdout
    assert cloud.calls() == []


def test_all_scripts_and_variables_are_in_the_readme():
    for script in SCRIPTS:
        assert f"launch/{script}" in README
    for name in re.findall(r'^: "\$\{(\w+):=', (LAUNCH / "pod.env").read_text(), re.MULTILINE):
        assert re.search(rf"\b{name}\b", README), name


def test_xpk_command_matches_the_manifest():
    (words,) = [command(line) for line in LINES if line.startswith("xpk workload create ")]
    flags = dict(word.removeprefix("--").split("=", 1) for word in words[3:])
    jobset = yaml.safe_load((LAUNCH / "gke/jobset.yaml").read_text())
    (slices,) = jobset["spec"]["replicatedJobs"]
    pod = slices["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert shlex.split(flags["command"]) == [
        *["exec", "python", "-m", "oneflow_jax.main"],
        *container["args"],
    ]
    hosts = slices["template"]["spec"]["parallelism"]
    cores = 2 * hosts * container["resources"]["limits"]["google.com/tpu"]
    assert flags["tpu-type"] == f"v4-{cores}"
    assert int(flags["num-slices"]) == slices["replicas"]
    assert int(flags["max-restarts"]) == jobset["spec"]["failurePolicy"]["maxRestarts"]
    assert int(flags["termination-grace-period-seconds"]) == pod["terminationGracePeriodSeconds"]


def test_cost_table_follows_from_the_compiler_cycles():
    page = (LAUNCH.parent / "docs/tpu.md").read_text()
    own = {"1B": 143.2, "8B": 792.7}  # TFLOP per chip and step, without recomputation
    for model, pod, chips in (("1B", "v4-64", 32), ("8B", "v4-256", 128)):
        assert str(own[model]) in page
        share = int(re.search(rf"^\| {model} \| {pod} \| .* (\d+) % \|$", page, re.MULTILINE)[1])
        seconds = round(own[model] / 275 / (share / 100), 2)
        hours = 100_000 * seconds / 3600
        cost = round(chips * hours * 3.22, -2)
        cells = [model, pod, chips, f"{8 * chips:,}", f"{seconds} s", f"{hours:.0f}"]
        cells += [f"{chips * hours:,.0f}", f"${cost:,.0f}"]
        assert f"| {' | '.join(map(str, cells))} |" in README


def test_gke_commands_match_the_manifest():
    (pool,) = [command(line) for line in LINES if "node-pools create" in line]
    jobset = yaml.safe_load((LAUNCH / "gke/jobset.yaml").read_text())
    (slices,) = jobset["spec"]["replicatedJobs"]
    pod = slices["template"]["spec"]["template"]["spec"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    assert f"--tpu-topology={topology}" in pool
    assert f"--num-nodes={slices['template']['spec']['parallelism']}" in pool
    account = pod["serviceAccountName"]
    assert f"kubectl create serviceaccount {account}" in LINES
    assert f".svc.id.goog/subject/ns/default/sa/{account}\n" in README
    image = pod["containers"][0]["image"].replace("PROJECT", "my-project")
    assert f"export IMAGE={image}" in LINES
    assert f"gcloud auth configure-docker {image.partition('/')[0]}" in LINES


def test_laptop_command_does_not_use_the_tpu_kernel():
    (line,) = [line for line in LINES if "--config.platform=any" in line]
    assert "--config.model.attention" not in command(line)
    assert tpu_v4.get_config("1B").model.attention == "auto"
