"""Tests that contradicting values are refused before data is prepared, which may take hours."""

import re

import pytest
from etils import epath

from oneflow_jax.build import data, system
from oneflow_jax.data.custom import prepare, store
from oneflow_jax.errors import UserError
from tests import runs
from tests.data.custom import examples
from tests.data.custom.changing_source import prepare_here
from tests.data.custom.test_record_layouts import RED

CONTRADICTIONS = [
    ({"model__heads": 3, "model__kv_heads": 2}, r"model\.heads=3: not a multiple of model\.kv_he"),
    ({"model__head_width": 12}, r"model\.head_width=12: not a multiple of 8"),
    ({"model__sliding_window": 64}, r"model\.sliding_window=64: in oneflow a slot attends to all"),
    ({"codec__pixels": 5}, r"5.*patch_size|patch_size.*5"),
    ({"checkpoint__every": 2, "checkpoint__keep_period": 3}, r"checkpoint\.keep_period=3"),
    ({"profile_steps": (5, 2)}, r"profile_steps=\(5, 2\)"),
    ({"paradigm__tasks__joint": 0.9}, r"paradigm\.tasks"),
    ({"evaluation__suite": "emoji"}, r"evaluation\.suite='emoji'"),
    ({"evaluation__clip_dir": "/no/such/folder"}, r"evaluation\.clip_dir=/no/such/folder"),
    ({"evaluation__nfe": (2, 10**6)}, r"evaluation\.nfe\[1\]=1000000"),
    ({"sampling__prompts": ("a <text> <imge>",)}, r"sampling\.prompts\[0\]='a <text> <imge>': .*"
     r"'<imge>' is not a known tag"),
    ({"sampling__prompts": ("a", "<text:0>")}, r"sampling\.prompts\[1\]='<text:0>': .*positive"),
    ({"optimizer__freeze": "("}, r"optimizer\.freeze='?\("),
    ({"mesh__fsdp": 3}, "fsdp"),
    ({"data__num_streams": 3}, "data.num_streams"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS)
def test_contradicting_values_are_refused_before_data_is_read(
    changes, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(data, "make_layout", None)
    config = runs.make_config(**changes)
    with pytest.raises(UserError, match=message):
        system.system(config, epath.Path(tmp_path))
    assert not list(tmp_path.iterdir())


def test_columns_that_select_nothing_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_run_workers", prepare_here)
    examples.write_files(tmp_path / "own", {"a.png": RED, "a.txt": "a cat"})
    config = examples.settings(tmp_path / "own", columns=("caption",))
    message = "dropped: 1 empty document; source.columns=('caption',) leaves out .png, .txt)."
    folder = prepare.prepare(config, str(tmp_path / "data"), 1)
    with pytest.raises(UserError, match=re.escape(message)):
        prepare.check_splits(store.open_prepared(folder))
