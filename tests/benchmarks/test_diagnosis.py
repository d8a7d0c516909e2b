"""Tests of `benchmarks.diagnosis`, without training."""

import re
import subprocess

import numpy as np
import pytest

from benchmarks import diagnosis

PAIRS = [(np.full((4, 4, 3), n, np.uint8), f"a thing {n}") for n in range(40)]


def test_three_runs_are_good_and_ten_are_bad():
    good = [name for name, case in diagnosis.CASES.items() if case.says == "^good"]
    assert (len(good), len(diagnosis.CASES)) == (3, 13)


@pytest.mark.parametrize("name", ["captions shuffled", "captions are file names", "one caption"])
def test_wrong_captions_keep_the_images(name):
    changed = diagnosis.CASES[name].change(PAIRS, np.random.default_rng(0))
    assert all(a[0] is b[0] for a, b in zip(changed, PAIRS, strict=True))
    same = sum(a[1] == b[1] for a, b in zip(changed, PAIRS, strict=True))
    assert same < 5


@pytest.mark.parametrize("name", ["one image", "images of noise"])
def test_wrong_images_keep_the_captions(name):
    changed = diagnosis.CASES[name].change(PAIRS, np.random.default_rng(0))
    assert [text for _, text in changed] == [text for _, text in PAIRS]
    assert not any(np.array_equal(a[0], b[0]) for a, b in zip(changed[1:], PAIRS[1:], strict=True))


def test_the_last_diagnosis_of_a_finished_run_counts(tmp_path, monkeypatch):
    printed = (
        "Step 9: Diagnosis: images do not depend on texts yet.\nDiagnosis: good. All is well.\n"
    )
    calls = []

    def run(command, **options):
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, printed, "")

    monkeypatch.setattr(subprocess, "run", run)
    case = diagnosis.CASES["too short"]
    sentence = diagnosis.run(tmp_path, case, 10, [])
    assert sentence == "good. All is well."
    assert not re.search(case.says, sentence)
    assert diagnosis.run(tmp_path, case, 10, []) == sentence
    assert len(calls) == 1  # A finished run is not repeated.


def test_a_run_that_stops_has_no_diagnosis(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "error: the loss is not finite")
    monkeypatch.setattr(subprocess, "run", lambda *values, **options: failed)
    sentence = diagnosis.run(tmp_path, diagnosis.CASES["good"], 10, [])
    assert sentence.startswith("no diagnosis")
    assert "not finite" in sentence
