"""Tests of renamed keys: old runs open, and errors about old flags name the new flags."""

import json
import pathlib

import pytest
from etils import epath

from oneflow_jax import main
from oneflow_jax.compare import metrics
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import metric_writer, renamed_keys, workdir
from tests import test_configs

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "configs"
OLD = json.loads((GOLDEN / "shipped_before_renaming.json").read_text())


def test_configuration_of_an_earlier_version_upgrades_to_the_names_of_today():
    new = json.loads((GOLDEN / "shipped_after_renaming.json").read_text())
    assert renamed_keys.upgrade(OLD) == new
    assert renamed_keys.upgrade(new) == new


def test_runs_with_old_names_open(tmp_path):
    (tmp_path / workdir.CONFIG).write_text(json.dumps(OLD))
    config = workdir.load_config(epath.Path(tmp_path))
    assert config.batch_size == OLD["batch"]
    assert config.paradigm.tasks.joint == OLD["paradigm"]["joint"]
    assert config.paradigm.time_coupling.edited == OLD["paradigm"]["revised"]
    assert config.paradigm.objective == "cross_entropy"
    assert config.model.attention == "xla"
    assert config.codec.std == OLD["codec"]["deviation"]


def test_old_deviation_key_is_divisor_of_latents_and_std_of_pixels():
    old = {"paradigm": {}, "codec": {"name": "learned", "deviation": 2.0, "patch": 4}}
    new = renamed_keys.upgrade(old)
    assert new["codec"] == {"name": "vae", "divisor": 2.0, "patch_size": 4}


def test_comparisons_with_old_names_are_upgraded_with_all_models():
    old = {
        "contestants": {"oneflow": OLD},
        "text_model": OLD,
        "codec": {"autoencoder": {}, "parts": 2, "objective": {"revival": 0.01}},
        "headline": {"oneflow": 16},
        "flops": 1e9,
        "order": ["oneflow"],
    }
    new = renamed_keys.upgrade(old)
    assert new["models"]["oneflow"] == new["text_model"] == renamed_keys.upgrade(OLD)
    assert new["codec"]["grad_accum_steps"] == 2
    assert new["codec"]["objective"] == {"dead_code_restart_prob": 0.01}
    assert (new["reported_nfe"], new["train_flops"]) == ({"oneflow": 16}, 1e9)
    assert not set(new) & {"contestants", "headline", "flops", "order"}


def test_old_names_are_gone_and_new_ones_exist():
    known = test_configs.every_key()
    sections = {key.split(".")[0] for key in known}
    assert not known & set(renamed_keys.RENAMED)
    assert set(renamed_keys.RENAMED.values()) <= known | sections


@pytest.mark.parametrize(
    ("argument", "new"),
    [
        *((f"--config.{old}=1", f"--config.{new}") for old, new in renamed_keys.RENAMED.items()),
        *renamed_keys.RENAMED_FLAGS.items(),
        ("--revise=a document", "--edit"),
        ("-config.batch=8", "--config.batch_size"),
    ],
)
def test_old_flags_raise_errors_with_the_new_name(argument, new):
    with pytest.raises(UserError, match=rf"write {new}\.$"):
        main.parse_config(["main", "--config=configs/quickstart.py", argument])


def test_current_flags_are_accepted():
    new = [f"--config.{key}=1" for key in renamed_keys.RENAMED.values()]
    renamed_keys.check_flags(["main", *new, *renamed_keys.RENAMED_FLAGS.values(), "a=b", "--"])


def test_old_logs_are_read_with_current_metric_names(tmp_path):
    path = epath.Path(tmp_path)
    row = {"step": 1, "heldout/text/u=0.1": 2.0, "heldout/psnr": 3.0, "train/waiting": 0.5}
    row |= {"heldout/tokens": 4.0, "train/z": 5.0, "train_flops": 6.0}
    (path / metric_writer.METRICS_FILE).write_text(json.dumps(row | {"train/loss": 1.0}) + "\n")
    assert metric_writer.read_metrics(path) == [
        {
            "step": 1,
            "eval/loss_text/t=0.1": 2.0,
            "eval/psnr": 3.0,
            "train/data_wait_fraction": 0.5,
            "eval/loss_insert_token": 4.0,
            "train/z_loss": 5.0,
            "train_flops": 6.0,
            "train/loss": 1.0,
        }
    ]


@pytest.mark.parametrize("metric", metrics.METRICS, ids=lambda metric: metric.name)
def test_current_metric_names_are_not_renamed(metric):
    assert renamed_keys.upgrade_metric(metric.name) == metric.name
