"""Names of configurations: `--config=quickstart` is that of the package, from any folder.

A value that ends in .py is the path of a file instead. Both may end in an argument, as in
`quickstart:edit_flow`.
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
"""The flag that names a configuration, and not one of its keys."""


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
    """Return the path of a configuration's file, with the argument after the colon.

    Args:
        value: `NAME`, `NAME:ARGUMENT`, `FILE.py` or `FILE.py:ARGUMENT`.

    Raises:
        UserError: there is no such configuration, or no such file.
    """
    name, colon, argument = value.partition(":")
    if not name.endswith(".py"):
        if name not in list_names():
            raise UserError(
                f"--config={value}: there is no configuration of this name.{_suggest(name)} "
                f"The names are {', '.join(list_names())}; the path of an own file ends in .py."
            )
        return f"{FOLDER / name}.py{colon}{argument}"
    if not pathlib.Path(name).is_file():
        raise UserError(
            f"--config={value}: there is no such file.{_suggest(name)} Give the path of a file, or "
            f"one of the names {', '.join(list_names())}."
        )
    return value


def resolve_flag(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command line with a path as the value of `--config`.

    Raises:
        UserError: there is no such configuration.
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
    """Return the choice that a mistyped word probably means, if there is one."""
    from rapidfuzz import distance, process

    match = process.extractOne(
        word.lower(),
        sorted(choices),
        scorer=distance.DamerauLevenshtein.normalized_similarity,
        score_cutoff=0.5,
    )
    return match and match[0]


def _suggest(name: str) -> str:
    """Return " Did you mean --config=...?" for the nearest name or the nearest file beside it."""
    path = pathlib.Path(name)
    files = {file.stem: str(file) for file in path.parent.glob("*.py")}
    choices = files | {known: known for known in list_names()}
    if name.endswith(".py"):  # A file beside it is nearer than a name of the package.
        choices |= files
    nearest = find_nearest(path.stem, choices)
    return f" Did you mean --config={choices[nearest]}?" if nearest else ""
