"""Tests of the content of sdist and wheel, and that the installed package works in any folder."""

import email
import pathlib
import re
import tarfile
import zipfile

import pytest
from packaging.requirements import Requirement

from tests import runs
from tests.packaging.conftest import Environment, build

EXTRAS = (
    *("aot", "aot-gpu", "beam", "cloud", "data", "demo", "docs", "gpu", "metrics", "parity"),
    *("serve", "test", "trackers"),
)


@pytest.fixture(scope="module")
def content(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def metadata(wheel, content):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in content if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_installs_one_package(content):
    folders = {name.split("/")[0] for name in content}
    assert {name for name in folders if not name.endswith(".dist-info")} == {"oneflow_jax"}


def test_the_wheel_holds_every_file_of_the_package_and_every_configuration(content):
    package = runs.REPOSITORY / "oneflow_jax"
    expected = {
        path.relative_to(runs.REPOSITORY).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".draft") and path.name != ".lock"
    }
    expected |= {
        f"oneflow_jax/configs/{path.name}" for path in (runs.REPOSITORY / "configs").glob("*.py")
    }
    assert expected <= set(content)
    # In the checkout, this file points to the folder `configs`; the wheel has another one instead.
    assert content.count("oneflow_jax/configs/__init__.py") == 1


def test_the_wheel_of_the_checkout_is_that_of_the_sdist(sources, content, tmp_path):
    with zipfile.ZipFile(build(sources, "wheel", tmp_path)) as archive:
        assert sorted(archive.namelist()) == sorted(content)


def test_the_sdist_holds_what_users_and_packagers_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
    files = ["LICENSE", "README.md", "CHANGELOG.md", "Makefile", "setup.py", "pyproject.toml"]
    files += [path.name for path in runs.REPOSITORY.glob("requirements*.txt")]
    files += ["configs/common.py", "oneflow_jax/shipped/weights.safetensors", "docs/quickstart.md"]
    files += ["launch/run_pod.sh", "tests/test_main.py", "oneflow_jax/viewer/base.html"]
    assert set(files) <= names
    assert not [name for name in names if name.endswith(".pyc") or "__pycache__" in name]


def listed(name):
    """Map each package in a requirements file, and in files that it includes, to its versions."""
    packages = {}
    for line in (runs.REPOSITORY / name).read_text().splitlines():
        line = re.sub(r"(^| )#.*", "", line).strip()
        if line.startswith("-r "):
            packages |= listed(line.removeprefix("-r "))
        elif line:
            requirement = Requirement(line)
            packages[requirement.name.lower().replace("_", "-")] = str(requirement.specifier)
    return packages


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_requirements_of_the_package_and_of_its_extras(extra, metadata):
    found = {}
    for line in metadata.get_all("Requires-Dist"):
        requirement = Requirement(line)
        if extra in (re.findall(r'extra == "([\w-]+)"', line) or [""]):
            name = requirement.name.lower().replace("_", "-")
            found[name] = str(requirement.specifier)
    assert found == listed(f"requirements-{extra}.txt" if extra else "requirements.txt")


def test_every_requirements_file_has_an_extra(metadata):
    files = {path.stem.partition("-")[2] for path in runs.REPOSITORY.glob("requirements-*.txt")}
    assert files == set(EXTRAS) == set(metadata.get_all("Provides-Extra"))


def test_the_configs_of_another_project_do_not_collide(installed, tmp_path):
    code = (
        "import configs, oneflow_jax.configs\n"
        "from oneflow_jax.configs import quickstart\n"
        "assert configs.OTHER\n"
        "print(quickstart.get_config().name, quickstart.common.__name__)"
    )
    done = installed.run("python", "-c", code, cwd=tmp_path)
    assert done.stdout.split() == ["quickstart", "oneflow_jax.configs.common"], done.stderr


TINY = (
    "--config.steps=2",
    "--config.optimizer.warmup_steps=1",
    "--config.batch_size=8",
    "--config.source.documents=40",
    "--config.data.vocab_size=300",
    "--config.model.layers=1",
    "--config.model.width=16",
    "--config.model.heads=2",
    "--config.evaluation.num_samples=2",
    "--config.evaluation.nfe=(1,)",
    "--config.sampling.steps=2",
    "--config.sampling.num_samples=1",
)


def test_training_by_the_name_of_a_configuration(installed, tmp_path):
    done = installed.run("oneflow", "train", "--config=quickstart", *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/quickstart/samples.html").exists()
    assert (tmp_path / "runs/quickstart/checkpoints/2").is_dir()


def test_sampling_from_the_shipped_model(installed, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in installed.site.rglob("shipped/*.*")}
    prompt = "--prompt=a picture of a tiger: <image>"
    done = installed.run("oneflow", "sample", prompt, *TINY[-2:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/pretrained/samples.html").exists()
    after = {path: path.stat().st_mtime_ns for path in installed.site.rglob("shipped/*.*")}
    assert {k: v for k, v in after.items() if k.suffix != ".pyc"} == before


OWN = """
from oneflow_jax.configs import quickstart

def get_config():
    config = quickstart.get_config()
    config.name = "mine"
    return config
"""


@pytest.mark.parametrize("program", ["oneflow", "module"])
def test_an_own_configuration_imports_those_of_the_package(program, installed, tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    arguments = ("--config=mine.py", "--prompt=<image>", "--workdir=run")
    if program == "oneflow":
        done = installed.run("oneflow", "sample", *arguments, cwd=tmp_path)
    else:
        line = ("-m", "oneflow_jax.main", "--mode=sample", *arguments)
        done = installed.run("python", *line, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "checkpoint" in done.stderr  # The configuration was read; there is no run yet.


def test_an_editable_install_finds_the_configurations(sources, tmp_path):
    environment = Environment(tmp_path / "venv")
    environment.install("--editable", sources)
    code = "import oneflow_jax.configs.digits as d; print(pathlib.Path(d.__file__).parent.name)"
    done = environment.run("python", "-c", f"import pathlib; {code}", cwd=tmp_path)
    assert done.stdout.strip() == "configs", done.stderr
    assert pathlib.Path(environment.bin / "oneflow").exists()
