"""Tests that need Apache Beam, which `make beam` installs in an environment of its own."""

import importlib.util

import pytest

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="needs Apache Beam; run `make beam`"
)
