import pickle
import shutil

import numpy as np
import pytest

from oneflow_jax import errors
from oneflow_jax.data import digits, sources


def test_documents_survive_pickling(tmp_path):
    source = sources.open_dataset("digits", tmp_path, "heldout")
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy) == len(source)
    assert copy[5].text() == source[5].text()
    np.testing.assert_array_equal(copy[5].images()[0], source[5].images()[0])


def test_an_index_out_of_range_ends_a_loop(tmp_path):
    source = sources.open_dataset("digits", tmp_path, "heldout")
    assert len(list(source)) == len(source)
    with pytest.raises(IndexError):
        source[-1]


def test_a_prepared_data_set_is_not_prepared_again(tmp_path, monkeypatch):
    before = sources.open_dataset("digits", tmp_path, "train")
    monkeypatch.setattr(digits.Digits, "_generate_examples", None)
    after = sources.open_dataset("digits", tmp_path, "train")
    assert [after[i].text() for i in range(9)] == [before[i].text() for i in range(9)]


def test_only_a_preparation_is_announced_and_not_as_a_download(tmp_path, caplog, capfd):
    caplog.set_level("INFO")
    sources.open_dataset("digits", tmp_path, "train")
    expected = f"Preparing the data set 'digits' from packages of this machine, into {tmp_path}."
    assert f"{expected} This happens once." in caplog.messages
    caplog.clear()
    sources.open_dataset("digits", tmp_path, "train")
    assert "Preparing" not in caplog.text
    assert "ownload" not in capfd.readouterr().out


def test_killed_preparation_is_repeated(tmp_path, monkeypatch):
    whole = digits.Digits._generate_examples

    def yield_then_interrupt(self, held_out):
        yield from list(whole(self, held_out))[:3]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(digits.Digits, "_generate_examples", yield_then_interrupt)
        with pytest.raises(KeyboardInterrupt):
            sources.open_dataset("digits", tmp_path, "train")
    # If SIGKILL ends a preparation, its temporary folder remains.
    (folder,) = (tmp_path / "digits").iterdir()
    (folder / "incomplete.ABCDEF_1.0.0").mkdir()
    assert len(sources.open_dataset("digits", tmp_path, "train")) > 1400


def test_concurrent_preparation_is_not_an_error(tmp_path, monkeypatch):
    whole = digits.Digits._generate_examples
    rival = tmp_path / "rival"
    sources.open_dataset("digits", rival, "train")

    def generate_after_rival(self, held_out):
        yield from whole(self, held_out)
        if held_out:
            shutil.copytree(rival / "digits", tmp_path / "mine" / "digits", dirs_exist_ok=True)

    monkeypatch.setattr(digits.Digits, "_generate_examples", generate_after_rival)
    assert len(sources.open_dataset("digits", tmp_path / "mine", "train")) > 1400


@pytest.mark.parametrize(
    ("name", "split", "settings", "message"),
    [
        ("digit", "train", {}, "digits, emoji, emoji_styles, toy"),
        ("digits", "test", {}, "split='test': .*train, heldout"),
        ("digits", "train", {"pixels": 8}, "no setting 'pixels'. It has: none"),
        ("toy", "train", {"colors": 8}, "no setting 'colors'"),
        ("toy", "test", {}, "split='test'"),
    ],
)
def test_errors_are_reported(tmp_path, name, split, settings, message):
    with pytest.raises(errors.UserError, match=message):
        sources.open_dataset(name, tmp_path, split, **settings)
