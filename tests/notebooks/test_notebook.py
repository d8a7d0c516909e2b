"""Tests that a shortened run of the notebook succeeds, and that it matches its source."""

import pathlib
import shutil

import jupytext
import nbclient
import nbformat
import pytest

from tests import runs

FOLDER = runs.REPOSITORY / "notebooks"
NOTEBOOK = FOLDER / "oneflow_colab.ipynb"


def contents(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.fixture(scope="module")
def run_notebook(tmp_path_factory):
    """Return the notebook after a run in a temporary copy of the repository."""
    clone = tmp_path_factory.mktemp("clone")
    for name in ("oneflow_jax", "configs"):
        (clone / name).symlink_to(runs.REPOSITORY / name)
    shutil.copytree(FOLDER, clone / "notebooks")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(clone / "notebooks")}}
    )
    here = {"ONEFLOW_QUICK": "1", "JAX_PLATFORMS": "cpu", "PYTHONPATH": ""}
    # Use the compilation cache of the other tests, and the notebook's plotting backend.
    client.execute(env=runs.popen_kwargs()["env"] | here | {"MPLBACKEND": ""})
    assert pathlib.Path(clone, "runs").exists()
    return notebook


def test_notebook_equals_its_source():
    stored = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(stored)
    assert contents(stored) == contents(jupytext.read(FOLDER / "oneflow_colab.py"))
    assert all(not cell.get("outputs") for cell in stored.cells), "outputs: run `make notebook`"


def test_notebook_outputs_are_complete(run_notebook):
    outputs = [output for cell in run_notebook.cells for output in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") >= 9
    html = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    (slider,) = [block for block in html if "data-slides" in block]
    assert slider.count("data-slide ") == 17  # 16 steps, and the result
    assert slider.count('type="range"') == 1
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "CPU 6,7" in printed  # Eight devices share the rows of a batch.
    assert "CPU 1,3,5,7" in printed  # Four devices share the columns of a matrix.
    for task in ("text to image", "image to text", "infilling", "from nothing"):
        assert f"{task}, " in printed
