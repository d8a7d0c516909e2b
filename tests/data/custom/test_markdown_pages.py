"""Tests of Markdown pages with front matter, and of pages beside an image of the same name."""

import pytest

from oneflow_jax.data.custom import front_matter, prepare, store
from tests.data.custom import examples
from tests.data.custom.changing_source import prepare_here
from tests.data.custom.test_record_layouts import BLUE, PAIR, RED, read_folder

YAML = "---\ntitle: My cat\nimage: red.png\ndraft: true\nnested: {a: [1]}\n---\n"
UNUSED = {"front matter: draft": 1, "front matter: nested": 1}

PAGES = {
    "front matter before a page": (
        {"a.md": f"{YAML}a cat\n\n![no](red.png)\n"},
        [["a cat", "<red>"]],
        UNUSED | {"front matter: title": 1, "front matter: image": 1},
    ),
    "the image in the front matter": (
        {"a.md": f"{YAML}a cat\n"},
        PAIR,
        UNUSED | {"front matter: title": 1},
    ),
    "image and text in the front matter": ({"a.md": YAML}, [["<red>", "My cat"]], UNUSED),
    "a caption in the front matter, beside an image": (
        {"red.md": "---\ncaption: a cat\n---\n"},
        PAIR,
        {},
    ),
    "a page beside an image": ({"red.md": "a *cat*\n"}, PAIR, {}),
    "a page in HTML beside an image": ({"red.html": "<p>a <b>cat</b>"}, PAIR, {}),
    "a page beside an image that names another": (
        {"red.md": "a cat ![](blue.png)\n"},
        [["a cat", "<blue>"]],
        {"image beside a page: .png": 1},
    ),
    "an image of another site": (
        {"a.md": "---\nimage: https://h/x.png\n---\na cat\n"},
        [["a cat"]],
        {"front matter: image": 1},
    ),
    "TOML": (
        {"a.md": "+++\ntitle = 'no'\nimage = 'red.png'\n+++\na cat\n"},
        PAIR,
        {"front matter: title": 1},
    ),
    "Windows line ends and a byte order mark": (
        {"red.md": "\ufeff---\r\ntitle: no\r\n---\r\na cat\r\n"},
        PAIR,
        {"front matter: title": 1},
    ),
    "a colon in a text": (
        {"red.md": "---\ncaption: 'yes: a cat'\n---\n"},
        [["<red>", "yes: a cat"]],
        {},
    ),
    "a name with a percent sign": (
        {"50%20.md": "a cat", "50%20.png": RED},
        [["<red>", "a cat"]],
        {},
    ),
}


@pytest.mark.parametrize("name", PAGES)
def test_pages_with_front_matter_and_images_beside(tmp_path, name):
    files, expected, unused = PAGES[name]
    documents, stats = read_folder(tmp_path, {"red.png": RED, "blue.png": BLUE} | files)
    tidy = [[" ".join(part.split()) for part in parts] for parts in documents]
    assert tidy == expected
    assert stats.unused == unused
    assert not stats.lost + stats.dropped


@pytest.mark.parametrize(
    "page",
    [
        "a page\n---\ntitle: x\n---\n",
        "---\n\nA line first, then no fields.\n\n---\n",
        "---\n[broken\n---\nbody",
        "---\n- a list\n---\nbody",
        "---\n---\nbody",
        "+++\nnot toml\n+++\nbody",
        "---\ntitle: without an end\n",
        "---\n" + "a: x\n" * 20_000 + "---\nbody",
    ],
)
def test_what_is_not_front_matter_stays_in_the_page(page):
    assert front_matter.split(page) == ({}, page)


def test_references_in_yaml_are_not_expanded():
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    fields, body = front_matter.split("---\n" + "\n".join(lines) + "\n---\nbody")
    assert fields["a0"] == ["x", "x"]
    assert fields["a11"] is None
    assert body == "body"


def test_an_image_beside_a_page_belongs_to_the_source(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_run_workers", prepare_here)
    own = tmp_path / "own"
    files = {f"{n}.md": f"cat {n}" for n in range(20)} | {f"{n}.png": RED for n in range(10)}
    examples.write_files(own, files)
    settings = examples.settings(own)
    before = prepare.prepare(settings, str(tmp_path / "data"), 1)
    stats = store.open_prepared(before).stats
    assert stats.contents == {"text and image": 10, "only text": 10}
    assert not stats.unused_files
    (own / "15.png").write_bytes(BLUE)
    after = prepare.prepare(settings, str(tmp_path / "data"), 1)
    assert store.open_prepared(after).stats.contents == {"text and image": 11, "only text": 9}
