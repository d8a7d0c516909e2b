"""Arguments of `oneflow finetune FOLDER --from=START`, converted to keys of the configuration."""

from collections.abc import Sequence

from oneflow_jax.errors import UserError

DEFAULT_START = "shipped"
"""Start model if --from is not given: the model of the package."""

KEYS_OF_FLAGS = {"--minutes": "--config.minutes"}
"""Flags of the command that are short forms of keys."""


def convert(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with FOLDER and short flags replaced by --config flags.

    FOLDER, the first argument, becomes source.path, and --from becomes the argument of
    configs/finetune.py. With --config, or with --workdir and without FOLDER and --from, which
    resumes a run, no configuration is added.

    Raises:
        UserError: FOLDER is missing, --from or --minutes has no value, or --config is given
            together with FOLDER or --from.
    """
    rest = list(arguments)
    folders = [rest.pop(0)] if rest and not rest[0].startswith("-") else []
    starts = _take(rest, "--from")
    for flag, key in KEYS_OF_FLAGS.items():
        rest += [f"{key}={value}" for value in _take(rest, flag)]
    names = {argument.partition("=")[0] for argument in rest}
    if "--config" in names:
        if folders or starts:
            raise UserError(
                "--config: it excludes FOLDER and --from, which choose the configuration. Leave "
                "it out."
            )
        return rest
    if "--workdir" in names and not folders and not starts:
        return rest
    if not folders and "--config.source.path" not in names:
        raise UserError(
            "oneflow finetune: the folder of your documents is missing. Write it first, as in "
            f"oneflow finetune FOLDER --from={DEFAULT_START}."
        )
    config = f"--config=finetune:{(starts or [DEFAULT_START])[-1]}"
    return [config, *(f"--config.source.path={folder}" for folder in folders), *rest]


def _take(arguments: list[str], flag: str) -> list[str]:
    """Remove a flag from the arguments, as `--flag=VALUE` or `--flag VALUE`; return its values."""
    values = []
    for index in range(len(arguments) - 1, -1, -1):
        name, equals, value = arguments[index].partition("=")
        if name != flag:
            continue
        if not equals:
            value = "".join(arguments[index + 1 : index + 2])
            del arguments[index + 1 : index + 2]
        if not value or value.startswith("-"):
            raise UserError(f"{flag}: its value is missing. Write {flag}=VALUE.")
        del arguments[index]
        values.insert(0, value)
    return values
