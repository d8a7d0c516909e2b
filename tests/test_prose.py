"""Tests that docstrings, comments, messages and pages use the words of docs/glossary.md."""

import pytest

from tests import prose, runs

FOLDERS = ("oneflow_jax", "tests", "configs", "benchmarks", "launch", "docs", "notebooks")
FILES = ("README.md", "CHANGELOG.md")


def test_no_banned_words():
    files = prose.list_files([runs.REPOSITORY / name for name in (*FOLDERS, *FILES)])
    assert len(files) > 400
    banned = [f"{path}:{n}: {word!r}" for path in files for n, word, _ in prose.find_banned(path)]
    assert not banned, "\n".join(banned)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.py", '"""Return a picture."""\n', [(1, "picture")]),
        ("a.py", "x = 1  # told anew\n", [(1, "told"), (1, "anew")]),
        ("a.py", 'x = f"nobody reads {x} here"\n', [(1, "nobody")]),
        ("a.py", 'x = "told"\npicture = 1\n', []),
        ("a.py", '"""Caption: a picture of a tiger."""\n', []),
        ("a.md", "Contestants `told` [it](told.md)\n", [(1, "Contestants")]),
        ("a.md", "```\ntold\n```\nA slope.\n", [(4, "slope")]),
        ("a.md", "<picture>\na <b>picture</b>\n", [(2, "picture")]),
    ],
)  # fmt: skip
def test_banned_words_are_found(name, text, expected, tmp_path):
    (tmp_path / name).write_text(text)
    assert [(n, word) for n, word, _ in prose.find_banned(tmp_path / name)] == expected
