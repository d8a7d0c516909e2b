"""The texts of `oneflow --help` and `oneflow COMMAND --help`."""

import textwrap

from oneflow_jax.cli import commands, config_names, flags

WIDTH = 96

INTRO = "oneflow: text and images generated at the same time, by one flow from noise to data."

KEYS = """\
Every key of a configuration can be set on the command line, as in --config.steps=500.
`oneflow configs` lists the configurations, and `oneflow configs NAME` shows all keys of one.
`oneflow COMMAND --help` shows the flags of a command, with examples.
`python -m oneflow_jax.main --mode=COMMAND` is the same as `oneflow COMMAND` for the modes
train, prepare, clean, evaluate, sample, export, import and aot."""

START = """\
    oneflow demo                              a page with the model of the package
    oneflow sample --prompt="<text> <image>"  a page of samples from that model
    oneflow train --config=quickstart         a model of your own, in 5 minutes"""


def format_help(name: str | None = None) -> str:
    """Return the help of a command, or of the program.

    Raises:
        UserError: no command has this name.
    """
    return _format_program() if name is None else _format_command(name)


def _format_program() -> str:
    summaries = {name: command.summary for name, command in commands.COMMANDS.items()}
    parts = [INTRO, "Usage: oneflow COMMAND [--flag=value ...]"]
    parts += ["Commands:\n" + _format_table(summaries), "To begin with:\n" + START, KEYS]
    return "\n\n".join(parts)


def _format_command(name: str) -> str:
    command = commands.find(name)
    parts = [f"oneflow {name}: {command.summary}"]
    if command.details:
        parts.append(textwrap.fill(command.details, WIDTH))
    texts = dict(map(_describe_flag, command.flags))
    parts.append("Main flags:\n" + _format_table(texts))
    lines = [f"    oneflow {name} {example}".rstrip() for example in command.examples]
    parts.append("Examples:\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _describe_flag(flag: str) -> tuple[str, str]:
    if flag in commands.FLAGS:
        return flag, commands.FLAGS[flag]
    return f"--{flag}", flags.describe(flag)


def _format_table(texts: dict[str, str]) -> str:
    """Return lines of names and texts in two columns."""
    left = 4 + max(map(len, texts)) + 2
    return "\n".join(
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=f"    {name}".ljust(left),
            subsequent_indent=" " * left,
            break_on_hyphens=False,
        )
        for name, text in texts.items()
    )


def format_configurations() -> str:
    """Return the list of the package's configurations, one line each."""
    table = {name: config_names.summarize(name) for name in config_names.list_names()}
    return "\n\n".join(
        [
            "Configurations, for --config=NAME:\n" + _format_table(table),
            f"Files of these configurations: {config_names.FOLDER}\n"
            "The file common.py has a comment for every key.\n"
            "Your own file can import them: `from oneflow_jax.configs import quickstart`.",
        ]
    )
