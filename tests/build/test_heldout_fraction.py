"""Tests of the choice of the fraction of documents that are held out."""

import json

import pytest
from etils import epath

from configs import own
from oneflow_jax.build import choice_record, custom_data, heldout_fraction
from oneflow_jax.data.custom import prepare
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from tests.data.custom import examples


def make_config(folder, data_dir, **changes):
    values = {
        "source.path": str(folder),
        "source.pixels": 4,
        "data.dir": str(data_dir),
        "data.num_prepare_workers": 1,
    }
    return workdir.replace_values(own.get_config(), values | changes)


def write_texts(folder, count):
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"text": f"the number {number}"}) for number in range(count)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return folder


def count_held_out(config, fraction):
    config = workdir.replace_values(config, {"source.heldout_fraction": fraction})
    return custom_data.open_prepared(config).stats.documents["heldout"]


@pytest.mark.parametrize(("documents", "held_out"), [(150, 10), (100, 10), (60, 6), (8, 1)])
def test_small_folders_hold_out_as_many_documents_as_a_diagnosis_needs(
    documents, held_out, tmp_path
):
    """Check also that this is at most one document in ten."""
    config = make_config(write_texts(tmp_path / "own", documents), tmp_path / "data")
    fraction, reason = heldout_fraction.choose_fraction(config)
    assert 0.05 <= fraction < 0.2
    assert count_held_out(config, fraction) == held_out
    assert f"because it holds out {held_out} of {documents} documents" in reason
    assert ("but at most about one in 10" in reason) == (held_out < 10)


def test_larger_folders_keep_the_configured_fraction(tmp_path):
    config = make_config(write_texts(tmp_path / "own", 400), tmp_path / "data")
    assert heldout_fraction.choose_fraction(config).value == 0.05


def test_large_data_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(heldout_fraction, "MAX_DOCUMENTS", 99)
    config = make_config(
        write_texts(tmp_path / "own", 100),
        tmp_path / "data",
        **{"source.heldout_fraction": 0.03},
    )
    assert heldout_fraction.choose_fraction(config).value == 0.03


def test_only_documents_with_text_and_images_count(tmp_path):
    """Mix 40 documents of text and an image with 400 texts: only one in ten of the 40 is wanted."""
    folder = write_texts(tmp_path / "own", 400)
    for number in range(40):
        (folder / f"{number}.png").write_bytes(examples.png(color=(number, 0, 0)))
    lines = [
        json.dumps({"text": f"image {number}", "image": f"{number}.png"}) for number in range(40)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    config = make_config(folder, tmp_path / "data", **{"source.heldout_fraction": 1e-4})
    fraction = heldout_fraction.choose_fraction(config).value
    config = workdir.replace_values(config, {"source.heldout_fraction": fraction})
    stored = prepare.open_folder(custom_data.open_prepared(config).folder, "heldout")
    both = [
        document for document in map(stored.__getitem__, range(len(stored))) if document.images()
    ]
    assert len(both) == 4


def test_a_single_document_is_an_error_as_before(tmp_path):
    config = make_config(write_texts(tmp_path / "own", 1), tmp_path / "data")
    with pytest.raises(UserError, match="1 document, none of which is in"):
        heldout_fraction.choose_fraction(config)


def test_a_run_saves_its_fraction_with_the_reason(tmp_path, cli):
    """Check that a fraction on the command line is not chosen, also one that holds out nothing."""
    command = (
        "--mode=prepare",
        "--config=configs/own.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.source.path={write_texts(tmp_path / 'own', 100)}",
        f"--config.data.dir={tmp_path / 'data'}",
    )
    cli(*command)
    folder = epath.Path(tmp_path / "run")
    config = workdir.load_config(folder)
    chosen = choice_record.read(folder, config)["source.heldout_fraction"]
    assert chosen.value == config.source.heldout_fraction > 0.05
    assert "source.heldout_fraction" in (folder / "data_report.html").read_text()
    with pytest.raises(UserError, match="none of which is in 'heldout'"):
        cli(*command, "--config.source.heldout_fraction=1e-6")
