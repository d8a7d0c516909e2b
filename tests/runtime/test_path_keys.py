import os

import ml_collections
import pytest

from configs import codec, compare, own
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import path_keys, storage, workdir
from tests import runs


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def own_config(path, **changes):
    config = own.get_config()
    config.source.path = path
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("~/photos", "{home}/photos"),
        ("~", "{home}"),
        ("photos", "{here}/photos"),
        ("./~/photos", "{here}/~/photos"),
        ("a~b", "{here}/a~b"),
        ("../x/", "{up}/x"),
        ("/a/b/../c", "/a/c"),
        ("gs://bucket/~/x", "gs://bucket/~/x"),
        ("s3://bucket/x", "s3://bucket/x"),
        ("[x] #1%20*?", "{here}/[x] #1%20*?"),
        ("", ""),
    ],
)
def test_path_forms_are_made_absolute(path, expected, tmp_path):
    expected = expected.format(home=tmp_path / "home", here=tmp_path, up=tmp_path.parent)
    changes = {"data__dir": path, "init_from": path, "evaluation__clip_dir": path}
    config = workdir.resolve_paths(own_config(path, evaluation__inception_weights=path, **changes))
    assert config.source.path == config.data.dir == config.init_from == expected
    assert config.evaluation.clip_dir == config.evaluation.inception_weights == expected


def test_home_of_an_unknown_user_is_an_error():
    with pytest.raises(UserError, match=r"source.path=~no-user-here/x: there is no home folder"):
        workdir.resolve_paths(own_config("~no-user-here/x"))
    with pytest.raises(UserError, match="--workdir=~no-user-here: there is no home folder"):
        storage.resolve_path("~no-user-here", "--workdir")


def test_data_set_name_is_not_a_path(tmp_path):
    config = own_config("mnist", source__format="tfds")
    assert workdir.resolve_paths(config).source.path == "mnist"
    (tmp_path / "mnist").mkdir()
    assert workdir.resolve_paths(config).source.path == str(tmp_path / "mnist")


def test_the_shipped_codec_is_not_a_path(tmp_path):
    config = own.get_config("latents")
    assert config.codec.path == path_keys.SHIPPED_CODEC
    assert workdir.resolve_paths(config).codec.path == path_keys.SHIPPED_CODEC
    config.codec.path = "shipped/codec"
    assert workdir.resolve_paths(config).codec.path == str(tmp_path / "shipped/codec")


def test_paths_of_comparison_models_and_codecs_are_found(tmp_path):
    config = workdir.resolve_paths(compare.get_config("smoke"))
    folders = {model.data.dir for model in config.models.values()}
    folders |= {config.codec.data.dir, config.text_model.data.dir}
    assert folders == {str(tmp_path / "runs/data")}
    assert workdir.resolve_paths(codec.get_config()).data.dir == str(tmp_path / "runs/data")


def test_input_configuration_is_not_modified_and_stays_locked():
    config = own_config("photos").lock()
    assert workdir.resolve_paths(config).is_locked
    assert config.source.path == "photos"


def iter_texts(config, prefix=""):
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from iter_texts(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            yield prefix + name


def test_every_path_key_is_listed():
    """Check that a new key is either listed, or named so that it does not look like a path."""
    names = {
        name
        for config in (own.get_config("latents"), codec.get_config())
        for name in iter_texts(config)
    }
    suspects = {
        n for n in names if any(w in n for w in ("path", "dir", "folder", "file", "weights"))
    }
    assert suspects <= set(path_keys.PATH_KEYS)


def test_missing_relative_path_of_an_old_run_names_its_key(tmp_path, monkeypatch):
    saved = own_config("photos", data__dir="data")
    (tmp_path / "photos").mkdir()
    (tmp_path / "data").mkdir()
    path_keys.check_relative(saved, saved)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(UserError, match=rf"data.dir=data: .*working folder, which is {elsewhere}"):
        path_keys.check_relative(saved, saved)
    path_keys.check_relative(saved, own_config(str(tmp_path / "photos"), data__dir="new"))


def test_old_run_with_a_relative_source_accepts_its_absolute_path(tmp_path):
    folder = storage.resolve_path(str(tmp_path / "run"), "--workdir")
    (folder / workdir.CHECKPOINTS / "2").mkdir(parents=True)
    (folder / workdir.CONFIG).write_text(own_config("photos").to_json())
    workdir.check_config(folder, workdir.resolve_paths(own_config("photos")))
    # The fingerprint in source.json decides whether the files at another path are the same.
    workdir.check_config(folder, workdir.resolve_paths(own_config("other")))
    changed = own_config("photos", source__glob="*.png")
    with pytest.raises(UserError, match=r"source\.glob"):
        workdir.check_config(folder, workdir.resolve_paths(changed))


@pytest.mark.parametrize("path", ["~/run", "~"])
def test_flags_and_arguments_expand_the_home(path):
    assert os.fspath(storage.resolve_path(path, "--workdir")) == os.path.expanduser(path)


def test_the_system_reads_files_of_the_home(tmp_path):
    config = workdir.expand_paths(runs.make_config(data__dir="~/data", init_from="plain"))
    assert config.data.dir == str(tmp_path / "home/data")
    assert config.init_from == "plain"


def test_the_command_line_expands_and_keeps_absolute_paths(tmp_path, parse):
    config = parse(
        runs.CONFIG.replace("tests/", f"{runs.REPOSITORY}/tests/"),
        "--config.data.dir=~/data",
        "--config.init_from=before/[1]",
        "--config.evaluation.clip_dir=gs://bucket/clip",
    )
    assert config.data.dir == str(tmp_path / "home/data")
    assert config.init_from == f"{tmp_path}/before/[1]"
    assert config.evaluation.clip_dir == "gs://bucket/clip"
    assert config.is_locked


def test_a_saved_run_keeps_its_paths_from_another_working_folder(tmp_path, parse, monkeypatch):
    folder = storage.resolve_path(str(tmp_path / "run"), "--workdir")
    folder.mkdir()
    workdir.save_config(folder, runs.make_config(data__dir="data"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert parse(f"--workdir={folder}").data.dir == str(tmp_path / "data")
    old = runs.make_config(data__dir="data").to_json()
    (folder / workdir.CONFIG).write_text(old)
    assert parse(f"--workdir={folder}", "--mode=sample").data.dir == "data"
    with pytest.raises(UserError, match=r"data\.dir=data: there is no such file or folder"):
        parse(f"--workdir={folder}")
    assert parse(f"--workdir={folder}", "--config.data.dir=/d").data.dir == "/d"
