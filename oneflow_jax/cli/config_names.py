"""Names of configurations, the values of `--config`.

A value such as `quickstart` is the name of a configuration of the package; it is valid in every
current directory. A value that ends in .py is the path of a file. A colon and an argument may
follow a name or a path, as in `quickstart:edit_flow`.
"""

import ast
import pathlib
import re
from collections.abc import Iterable, Sequence

from oneflow_jax import configs
from oneflow_jax.errors import UserError

FOLDER = pathlib.Path(configs.__path__[0])
"""Folder of the configurations that come with the package."""

FLAG = re.compile("--?config(=|$)")
"""Pattern of the flag `--config`; it does not match `--config.KEY`."""


def list_names() -> list[str]:
    """Return the names of the package's configurations."""
    return sorted(
        path.stem for path in FOLDER.glob("*.py") if "\ndef get_config(" in path.read_text()
    )


def summarize(name: str) -> str:
    """Return the first line of a configuration's docstring."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def resolve(value: str) -> str:
    """Replace the name in a value of `--config` by the path of its file, and keep the argument.

    Args:
        value: `NAME`, `NAME:ARGUMENT`, `FILE.py` or `FILE.py:ARGUMENT`.

    Raises:
        UserError: no configuration has this name, or the file does not exist.
    """
    name, colon, argument = value.partition(":")
    if not name.endswith(".py"):
        if name not in list_names():
            raise UserError(
                f"--config={value}: no configuration has this name.{_suggest(name)} The "
                f"names are {', '.join(list_names())}. The path of your own file must end in .py."
            )
        return f"{FOLDER / name}.py{colon}{argument}"
    if not pathlib.Path(name).is_file():
        raise UserError(
            f"--config={value}: there is no such file.{_suggest(name)} Give the path of a file, or "
            f"one of the names {', '.join(list_names())}."
        )
    return value


def resolve_flag(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command line with the value of `--config` replaced by a path.

    Raises:
        UserError: no configuration has this name, or the file does not exist.
    """
    resolved = list(arguments)
    for n, argument in enumerate(arguments):
        if argument == "--":
            break
        if FLAG.match(argument):
            flag, equals, value = argument.partition("=")
            if equals:
                resolved[n] = f"{flag}={resolve(value)}"
            elif n + 1 < len(arguments):
                resolved[n + 1] = resolve(arguments[n + 1])
    return resolved


def find_nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that is most similar to a mistyped word, or None if none is similar."""
    from rapidfuzz import distance, process

    match = process.extractOne(
        word.lower(),
        sorted(choices),
        scorer=distance.DamerauLevenshtein.normalized_similarity,
        score_cutoff=0.5,
    )
    return match and match[0]


def _suggest(name: str) -> str:
    """Return " Did you mean --config=...?" with the most similar name or file, or ""."""
    path = pathlib.Path(name)
    files = {file.stem: str(file) for file in path.parent.glob("*.py")}
    choices = files | {known: known for known in list_names()}
    if name.endswith(".py"):  # Files take precedence over configurations of the package.
        choices |= files
    nearest = find_nearest(path.stem, choices)
    return f" Did you mean --config={choices[nearest]}?" if nearest else ""
