"""The record of the values that the program chose for a run, with the reason for each.

The file `choices.json` in the run's folder has the record. So evaluation and sampling can show it
long after training, and a resumed run does not lose it.
"""

import functools
import json
import operator
from typing import NamedTuple

import ml_collections
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir


class Choice(NamedTuple):
    """A value of a key of the configuration, and the reason for it: a clause without a period."""

    value: float
    reason: str


def write(folder: epath.Path, name: str, choice: Choice) -> None:
    """Write a choice for a key to the record; an earlier choice for this key is replaced."""
    record = _read(folder) | {name: choice._asdict()}
    workdir.write_atomically(folder / workdir.CHOICES, json.dumps(record, indent=2) + "\n")


def read(folder: epath.Path, config: ml_collections.ConfigDict) -> dict[str, Choice]:
    """Return the choices in the record by key.

    Args:
        folder: the run's folder; without a record, the result is empty.
        config: the run's configuration. A choice that it does not have any more is left out,
            because the user has replaced the value.

    Raises:
        UserError: the file is damaged.
    """
    choices = {name: Choice(**entry) for name, entry in _read(folder).items()}
    return {
        name: choice
        for name, choice in choices.items()
        if functools.reduce(operator.getitem, name.split("."), config) == choice.value
    }


def format_table(choices: dict[str, Choice]) -> str:
    """Return the choices as lines of text, or "" if there are none."""
    lines = [f"  {name}={value:,}, {reason}." for name, (value, reason) in choices.items()]
    return "\n".join(["Chosen by the program:", *lines]) if lines else ""


def _read(folder: epath.Path) -> dict[str, dict[str, float | str]]:
    path = folder / workdir.CHOICES
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path}: the file is damaged ({error}). Delete it.") from error
