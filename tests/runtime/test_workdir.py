import json

import pytest
from etils import epath

from configs import compare
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from tests import runs


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def test_saved_configuration_is_loaded_unchanged(folder):
    config = runs.make_config(sampling__edit_start=0.0, source__name="toy", data__dir="/data")
    workdir.save_config(folder, config)
    saved = workdir.load_config(folder)
    assert saved.to_json() == config.to_json()
    assert saved.paradigm.time_sampler == ("power", 1.0)
    assert isinstance(saved.evaluation.nfe, tuple)
    workdir.check_config(folder, saved)


def write_run(folder):
    workdir.save_config(folder, runs.make_config())
    (folder / workdir.TOKENIZER).write_text("learned")
    (folder / workdir.CHECKPOINTS / "2").mkdir(parents=True)


def test_changed_configuration_is_refused_by_key(folder):
    write_run(folder)
    before = (folder / workdir.CONFIG).read_text()
    with pytest.raises(UserError) as raised:
        workdir.check_config(
            folder, runs.make_config(model__width=64, optimizer__max_grad_norm=2.0)
        )
    assert "model.width: 32 there, 64 now" in str(raised.value)
    assert "optimizer.max_grad_norm: 1.0 there, 2.0 now" in str(raised.value)
    assert "batch" not in str(raised.value)
    assert (folder / workdir.CONFIG).read_text() == before
    assert (folder / workdir.TOKENIZER).exists()


def test_added_key_counts_as_a_changed_configuration(folder):
    write_run(folder)
    old = json.loads((folder / workdir.CONFIG).read_text())
    del old["model"]["width"]
    (folder / workdir.CONFIG).write_text(json.dumps(old))
    with pytest.raises(UserError, match=r"model.width: None there, 32 now"):
        workdir.check_config(folder, runs.make_config())


def test_run_of_an_earlier_version_resumes(folder):
    write_run(folder)
    old = json.loads((folder / workdir.CONFIG).read_text())
    del old["init_from"], old["optimizer"]["freeze"], old["sampling"]["top_k"]
    (folder / workdir.CONFIG).write_text(json.dumps(old))
    assert json.loads(workdir.load_config(folder).to_json()) == json.loads(
        workdir.resolve_paths(runs.make_config()).to_json()
    )
    workdir.check_config(folder, runs.make_config())
    with pytest.raises(UserError, match=r"optimizer.freeze: '' there, 'tower' now"):
        workdir.check_config(folder, runs.make_config(optimizer__freeze="tower"))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 12},
        {"sampling__steps": 9},
        {"mesh__data": 1},
        {"evaluation__nfe": (1,)},
        {"model__remat": "full"},
        {"model__scan_unroll": 2},
        {"data__num_workers": 3},
        {"data__cache_size": 7},
        {"data__num_prepare_workers": 2},
        {"logging__every": 3},
        {"sampling__preview_every": 5},
        {"compilation_cache": True},
        {"profile_steps": (1, 2)},
        {"checkpoint__skip_damaged": True},
    ],
)
def test_mutable_keys_may_change(folder, change):
    write_run(folder)
    workdir.check_config(folder, runs.make_config(**change))
    assert (folder / workdir.TOKENIZER).exists()


def test_without_checkpoints_any_key_may_change_and_the_tokenizer_is_deleted(folder):
    workdir.save_config(folder, runs.make_config())
    (folder / workdir.TOKENIZER).write_text("learned")
    workdir.check_config(folder, runs.make_config())
    assert (folder / workdir.TOKENIZER).exists()
    workdir.check_config(folder, runs.make_config(data__vocab_size=99))
    assert not (folder / workdir.TOKENIZER).exists()


def test_tokenizer_without_a_configuration_is_deleted(folder):
    """Check a run that was killed between writing the tokenizer and the configuration."""
    (folder / workdir.TOKENIZER).write_text("learned")
    workdir.check_config(folder, runs.make_config())
    assert not (folder / workdir.TOKENIZER).exists()


def test_file_writes_are_atomic(folder):
    path = folder / "figures.json"
    workdir.write_atomically(path, "first")
    workdir.write_atomically(path, "old")
    with pytest.raises(TypeError):
        workdir.write_atomically(path, None)
    assert path.read_text() == "old"


RELATIVE = {
    "data.dir": "data",
    "init_from": "other/run",
    "evaluation.inception_weights": "nets/inception.pth",
    "evaluation.clip_dir": "~/clip",
}


def test_paths_are_absolute_in_a_saved_configuration(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", "/home/ada")
    changes = {name.replace(".", "__"): path for name, path in RELATIVE.items()}
    (folder / "run").mkdir()
    workdir.save_config(folder / "run", runs.make_config(**changes))
    saved = json.loads((folder / "run" / workdir.CONFIG).read_text())
    assert saved["data"]["dir"] == f"{folder}/data"
    assert saved["init_from"] == f"{folder}/other/run"
    assert saved["evaluation"]["inception_weights"] == f"{folder}/nets/inception.pth"
    assert saved["evaluation"]["clip_dir"] == "/home/ada/clip"


def test_skip_damaged_is_not_saved(folder):
    workdir.save_config(folder, runs.make_config(checkpoint__skip_damaged=True))
    assert not workdir.load_config(folder).checkpoint.skip_damaged


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"name": "tiny"'])
def test_a_damaged_configuration_is_named(folder, text):
    (folder / workdir.CONFIG).write_text(text)
    with pytest.raises(UserError, match=r"config.json: the file is damaged"):
        workdir.load_config(folder)


def test_a_check_before_reading_deletes_nothing(folder):
    (folder / workdir.TOKENIZER).write_text("learned")
    workdir.check_config(folder, runs.make_config(), may_write=False)
    assert (folder / workdir.TOKENIZER).exists()


def test_keys_that_an_old_comparison_lacks_get_the_values_of_that_time(folder):
    config = compare.get_config("smoke").copy_and_resolve_references()
    sections = [*config.models.values(), config.text_model]
    for section in sections:
        del section.paradigm["text_lead"]
        del section.paradigm["flow_map"]
        del section.optimizer["name"]
    del config.codec.checkpoint["use"]
    (folder / workdir.CONFIG).write_text(config.to_json())
    saved = workdir.load_config(folder)
    for section in (*saved.models.values(), saved.text_model):
        assert section.paradigm.text_lead == 1.0
        assert section.paradigm.flow_map is False
        assert section.optimizer.name == "adamw"
    assert saved.codec.checkpoint.use == "newest"


@pytest.mark.parametrize(
    ("field", "advice"), [("--from", ", or shipped."), ("--workdir", ", or --config to train.")]
)
def test_a_missing_folder_is_told_from_one_that_is_no_run(field, advice, tmp_path):
    with pytest.raises(UserError, match=rf"{field}=.*no config\.json in this folder.*{advice}"):
        workdir.load_config(epath.Path(tmp_path), field)
    with pytest.raises(UserError, match=rf"{field}=.*/none: there is no such folder\. .*{advice}"):
        workdir.load_config(epath.Path(tmp_path / "none"), field)
