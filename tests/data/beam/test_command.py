"""Tests of --runner and --runner_option."""

import json

import pytest

from oneflow_jax.data.custom import prepare
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from tests import runs
from tests.data.beam import needs_beam
from tests.data.beam.test_engine import in_this_process  # noqa: F401 - a fixture
from tests.data.custom import changing_source, examples

pytestmark = needs_beam


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([runs.CONFIG, "--runner=DirectRunner"], r"--mode=train does not accept it\. Prepare the"),
        (
            [runs.CONFIG, "--mode=prepare", "--runner_option=region=x"],
            r"--runner_option=region=x: only runners of Apache Beam have options",
        ),
        (
            [runs.CONFIG, "--mode=prepare", "--runner=DirectRunner"],
            r"--runner=DirectRunner: only own data can be prepared.*source\.name=toy",
        ),
        (
            ["--config=configs/codec.py:kl", "--mode=prepare", "--runner=DirectRunner"],
            r"--runner=DirectRunner: a codec takes no runner",
        ),
    ],
)
def test_runners_that_cannot_be_used_are_refused(arguments, message, cli, tmp_path):
    with pytest.raises(UserError, match=message):
        cli(*arguments, f"--workdir={tmp_path}")


@pytest.mark.usefixtures("in_this_process")
def test_both_engines_prepare_the_same_run(cli, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "_run_workers", changing_source.prepare_here)
    own = examples.write_jsonl(tmp_path / "own", 60)
    written = {}
    for runner in ("local", "DirectRunner"):
        folder = tmp_path / runner
        cli(
            "--config=configs/own.py",
            "--mode=prepare",
            f"--config.source.path={own}",
            f"--config.data.dir={folder / 'data'}",
            "--config.data.shard_megabytes=1",
            "--config.data.vocab_size=300",
            f"--workdir={folder / 'run'}",
            f"--runner={runner}",
        )
        report = json.loads((folder / "run/data_report.json").read_text())
        for name in ("prepared", "path"):
            report.pop(name)
        config = json.loads((folder / "run" / workdir.CONFIG).read_text())
        config["data"].pop("dir")
        tokenizer = (folder / "run" / workdir.TOKENIZER).read_bytes()
        written[runner] = report, config, tokenizer, capsys.readouterr().out.count("documents")
    assert written["local"] == written["DirectRunner"]
