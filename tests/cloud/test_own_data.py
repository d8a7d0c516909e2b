"""Tests of own data in a bucket: source.path=gs://, and shards that workers write to a bucket."""

import json

import pytest

from oneflow_jax.data.beam import engine
from oneflow_jax.data.custom import bucket, prepare, store
from oneflow_jax.errors import UserError
from tests.data.beam import needs_beam
from tests.data.beam.test_engine import describe_stats, read_documents
from tests.data.custom import changing_source, examples


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    monkeypatch.setattr(prepare, "_run_workers", changing_source.prepare_here)


def copy(folder, target):
    """Copy all files of a folder to a bucket."""
    for path in folder.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(folder).as_posix()
            place.write_bytes(path.read_bytes())


def write_linked_images(folder):
    """Write JSON lines with images in another folder, and with paths that are not allowed."""
    files = {f"images/{n}.png": examples.png((10 * n, 0, 0)) for n in range(16)}
    names = [f"images/{n}.png" for n in range(8)]
    names += [f"images\\{n}.png" for n in range(8, 16)]
    names += ["../x.png", "gs://bucket/a.png", "no.png", "images"]
    lines = [{"image": name, "caption": f"image {n}"} for n, name in enumerate(names)]
    files["lines/all.jsonl"] = "\n".join(map(json.dumps, lines))
    files |= {".hidden/c.png": "", "d.txt": ""}
    marks = ("config.json", "tokenizer.model", "weights.safetensors", "e.jsonl")
    examples.write_files(folder, files | {f"run/{name}": "" for name in marks})
    return examples.settings(folder)


@pytest.mark.parametrize("layout", ["links", "pairs", "parquet", "webdataset", "json"])
def test_documents_in_a_bucket_are_those_of_a_folder(layout, tmp_path, remote):
    if layout == "links":
        settings = write_linked_images(tmp_path / "own")
    else:
        source = changing_source.ChangingSource(tmp_path / "own", 0, layout)
        settings = examples.settings(source.folder, format=source.format)
    copy(tmp_path / "own", remote)
    there = examples.settings(remote, format=settings.format)
    local = prepare.prepare(settings, str(tmp_path / "local"), 1)
    cloud = prepare.prepare(there, str(tmp_path / "cloud"), 1)
    assert read_documents(cloud) == read_documents(local)
    assert describe_stats(cloud) == describe_stats(local)
    assert prepare.prepare(there, str(tmp_path / "cloud"), 1) == cloud


def test_changed_objects_are_prepared_again(tmp_path, remote):
    source = changing_source.ChangingSource(tmp_path / "own", 0)
    copy(source.folder, remote)
    there = examples.settings(remote)
    before = prepare.prepare(there, str(tmp_path / "cloud"), 1)
    key = sorted(source.texts)[0]
    (remote / f"{key}.txt").write_text("text 99")
    after = prepare.prepare(there, str(tmp_path / "cloud"), 1)
    assert store.open_prepared(after).fingerprint != store.open_prepared(before).fingerprint
    texts = [record for counts in read_documents(after).values() for record in counts]
    assert any(b"text 99" in record for record in texts)


@needs_beam
def test_workers_write_shards_to_a_bucket(tmp_path, remote):
    settings = examples.settings(examples.write_jsonl(tmp_path / "own"))
    copy(tmp_path / "own", remote / "own")
    local = prepare.prepare(settings, str(tmp_path / "local"), 1)
    beam = engine.BeamEngine("DirectRunner", [f"temp_location={remote}/temp"], shard_bytes=4_000)
    there = examples.settings(remote / "own")
    cloud = prepare.prepare(there, str(tmp_path / "cloud"), 1, engine=beam)
    assert store.open_prepared(cloud).plan.num_shards > 2
    assert read_documents(cloud) == read_documents(local)
    assert not list((remote / "temp").glob("*"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://bucket/x", r"s3:// needs s3fs, which is not installed\. Run pip install s3fs"),
        ("ftp://host/x", r"unsupported kind of storage\. .*gs:// or s3://"),
    ],
)
def test_other_storage_is_refused(path, message, monkeypatch):
    monkeypatch.setitem(bucket.PACKAGES, "s3", "s3fs")
    monkeypatch.setattr(bucket.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        examples.settings(path)
