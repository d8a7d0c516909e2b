"""Installs oneflow_jax; `pip install -e .[test]` for development."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "oneflow_jax/__init__.py").read_text(), re.MULTILINE
)[1]


def requirements(name: str) -> list[str]:
    """Return the packages of a requirements file, with those of the files that it refers to."""
    found = []
    for line in (HERE / name).read_text().splitlines():
        line = re.sub(r"(^| )#.*", "", line).strip()
        if line.startswith("-r "):
            found += requirements(line.removeprefix("-r "))
        elif line:
            found.append(line)
    return found


setuptools.setup(
    name="oneflow_jax",
    version=VERSION,
    description="Text and images generated at the same time by flow matching, in JAX, for TPUs",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["oneflow_jax*"]),
    # The repository shows its configurations at the top; the installed package contains them.
    package_dir={"oneflow_jax.configs": "configs"},
    package_data={
        "oneflow_jax.viewer": ["*.html", "*.css", "*.js", "demo/*"],
        "oneflow_jax.shipped": ["*.json", "*.model", "*.safetensors", "*.md", "codec/*"],
    },
    entry_points={"console_scripts": ["oneflow = oneflow_jax.__main__:main"]},
    install_requires=requirements("requirements.txt"),
    extras_require={
        path.stem.partition("-")[2]: requirements(path.name)
        for path in sorted(HERE.glob("requirements-*.txt"))
    },
)
