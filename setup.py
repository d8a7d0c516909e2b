"""Installs oneflow_jax; `pip install -e .[test]` for development."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "oneflow_jax/__init__.py").read_text(), re.MULTILINE
)[1]


def requirements(name: str) -> list[str]:
    """Return the lines of a requirements file without comments and references to other files."""
    lines = (HERE / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-"))]


setuptools.setup(
    name="oneflow_jax",
    version=VERSION,
    description="Text and images generated at the same time by flow matching, in JAX, for TPUs",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["oneflow_jax*", "configs*"]),
    package_data={
        "oneflow_jax.viewer": ["*.html", "*.css", "*.js"],
        "oneflow_jax.shipped": ["*.json", "*.model", "*.safetensors", "*.md"],
    },
    install_requires=requirements("requirements.txt"),
    extras_require={
        "demo": requirements("requirements-demo.txt"),
        "docs": requirements("requirements-docs.txt"),
        "data": requirements("requirements-data.txt"),
        "metrics": requirements("requirements-metrics.txt"),
        "parity": requirements("requirements-parity.txt"),
        "test": requirements("requirements-test.txt")
        + requirements("requirements-metrics.txt")
        + requirements("requirements-data.txt"),
    },
)
