"""Tests of features of all templates: escaping, missing values, data for scripts, files."""

import json
import pathlib
import re

import jinja2
import pytest

from oneflow_jax.viewer import templates
from tests.viewer.test_page import MALICIOUS_TEXT

FOLDER = pathlib.Path(templates.__file__).parent
PAGE_FIELDS = {
    **{"heading": "", "intro": "", "settings": {}, "word_columns": []},
    **{"findings": [], "sheet": None, "notes": [], "choices": {}},
}


def render_script_data(data):
    text = templates.render("page.html", **PAGE_FIELDS, data=data)
    return re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]


def test_values_are_escaped_and_not_rendered_as_templates():
    for template, fields in (
        ("message.html", {"role": "alert", "message": MALICIOUS_TEXT}),
        ("message.html", {"role": "status", "message": MALICIOUS_TEXT}),
        ("document.html", {"parts": [("text", MALICIOUS_TEXT), ("gap", MALICIOUS_TEXT)]}),
        ("document_page.html", {"title": MALICIOUS_TEXT, "body": ""}),
    ):
        text = templates.render(template, **fields)
        assert "<script" not in text
        assert "<!--" not in text
        assert "{{data}}" in text


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'message' is undefined"):
        templates.render("message.html", role="alert")


def test_script_data_stays_in_its_element_and_round_trips():
    data = {MALICIOUS_TEXT: [MALICIOUS_TEXT, "\u2029 狐", 1.5, None]}
    text = render_script_data(data)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == data
    # Other characters are not escaped, which keeps pages small.
    assert "狐" in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        render_script_data([float("nan")])


def test_every_template_compiles_and_every_asset_is_used_by_one():
    names = {path.name for path in FOLDER.iterdir() if path.suffix == ".html"}
    assert {"base.html", "page.html", "gallery.html", "comparison.html"} <= names
    for name in names:
        assert templates._ENVIRONMENT.get_template(name)
    # Each style sheet and script that a template names exists.
    sources = "".join((FOLDER / name).read_text("utf-8") for name in names)
    assets = set(re.findall(r'"(\w+\.(?:css|js))"', sources))
    assert assets == {path.name for path in FOLDER.iterdir() if path.suffix in {".css", ".js"}}
