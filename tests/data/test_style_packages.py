"""Tests of style packages: reading npm files, and errors that name the command to fetch them."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from oneflow_jax import errors
from oneflow_jax.data import emoji_concepts, fetch_emoji_styles, style_packages
from tests.data import small_style_packages

NOTO = style_packages.STYLES[0]
RED = '<rect width="10" height="10" fill="#f00"/>'
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


def write_icons(folder, icon_set):
    small_style_packages.write_package(folder / NOTO.file_name, "package/icons.json", icon_set)


def test_icons_aliases_and_sizes_are_read(tmp_path):
    write_icons(
        tmp_path,
        {
            "icons": {"red-apple": {"body": RED}, "wide": {"body": RED, "width": 20}},
            "aliases": {
                "apple": {"parent": "red-apple"},
                "left": {"parent": "wide", "hFlip": True},
            },
            "width": 10,
            "height": 10,
        },
    )
    svgs = style_packages.read_svgs(tmp_path, NOTO)
    assert svgs.keys() == {"redapple", "wide", "apple"}
    assert svgs["apple"] == svgs["redapple"]
    apple, wide = (emoji_concepts.render_svg(svgs[name], 8) for name in ("apple", "wide"))
    np.testing.assert_array_equal(apple, np.broadcast_to([255, 0, 0], (8, 8, 3)))
    assert wide.shape == (4, 8, 3)
    np.testing.assert_array_equal(wide[:, 5:], 255)


@pytest.mark.parametrize(
    ("name", "normal"),
    [("Piñata", "pinata"), ("red-apple", "redapple"), ("three o’clock", "threeoclock")],
)
def test_names_are_compared_by_letters_and_digits(name, normal):
    assert style_packages.normalize_name(name) == normal


def test_keywords_are_more_than_the_name(packages_folder):
    assert style_packages.read_keywords(packages_folder) == {
        "🦁": ("mane", "roar", "Leo's"),
        "🦊": ("sly", "clever", "animal"),
    }


def test_a_missing_package_is_answered_with_the_command(tmp_path):
    with pytest.raises(
        errors.UserError, match=rf"no {NOTO.file_name} in this folder. Run `make emoji-styles`"
    ):
        style_packages.read_svgs(tmp_path, NOTO)


@pytest.mark.parametrize("damage", ["truncated", "empty", "no icons", "not JSON"])
def test_a_damaged_package_is_named(tmp_path, packages_folder, damage):
    path = tmp_path / NOTO.file_name
    whole = (packages_folder / NOTO.file_name).read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "empty":
            path.touch()
        case "no icons":
            small_style_packages.write_package(path, "package/info.json", {})
        case "not JSON":
            with tarfile.open(path, "w:gz") as package:
                info = tarfile.TarInfo("package/icons.json")
                info.size = 1
                package.addfile(info, io.BytesIO(b"{"))
    with pytest.raises(errors.UserError, match=rf"{path}: not the expected npm package"):
        style_packages.read_svgs(tmp_path, NOTO)


@needs_npm
def test_packages_are_fetched_by_npm_and_attributed(tmp_path):
    project, folder = tmp_path / "project", tmp_path / "folder"
    project.mkdir()
    (project / "package.json").write_text(json.dumps({"name": "noto", "version": "1.0.0"}))
    fetch_emoji_styles.fetch(folder, {"noto-1.0.0.tgz": str(project)})
    with tarfile.open(folder / "noto-1.0.0.tgz") as package:
        assert package.getnames() == ["package/package.json"]
    text = (folder / "ATTRIBUTION.md").read_text()
    for style in style_packages.STYLES:
        assert f"| {style.name} | {style.author} | {style.license} |" in text
    assert {path.name for path in folder.iterdir()} == {"noto-1.0.0.tgz", "ATTRIBUTION.md"}
    shutil.rmtree(project)
    fetch_emoji_styles.fetch(
        folder, {"noto-1.0.0.tgz": str(project)}
    )  # The package exists, so npm is not called again.


@needs_npm
def test_a_package_that_npm_cannot_find_is_named(tmp_path):
    with pytest.raises(errors.UserError, match=r"npm pack .*nowhere failed"):
        fetch_emoji_styles.fetch(tmp_path, {"nowhere-1.0.0.tgz": str(tmp_path / "nowhere")})
    assert not list(tmp_path.glob("*.tgz"))


def test_without_npm_the_command_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "oneflow_jax.data.fetch_emoji_styles", str(tmp_path / "new")],
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "error: npm is not installed. Install Node.js, which includes npm.\n",
    )
