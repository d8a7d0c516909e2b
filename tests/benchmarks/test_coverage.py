"""Tests of `benchmarks.coverage`."""

import json

from benchmarks import coverage
from oneflow_jax.training import diagnosis


def test_intervals_of_few_documents_are_too_narrow(tmp_path, capsys):
    path = tmp_path / "coverage.json"
    numbers = [5, diagnosis.MIN_DOCUMENTS]
    flags = ["--documents", *map(str, numbers), "--simulations", "400", "--json", str(path)]
    found = coverage.main(flags)
    assert 0.75 < found[5] < 0.87 < found[diagnosis.MIN_DOCUMENTS] < 0.97
    assert json.loads(path.read_text())["5"] == found[5]
    assert f"{found[5]:.3f}" in capsys.readouterr().out
