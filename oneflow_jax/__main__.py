"""The program `oneflow`, also run by `python -m oneflow_jax`.

Each command imports its modules when it runs, so help is printed without importing JAX.
"""

import os
import sys

from oneflow_jax import shipped
from oneflow_jax.cli import commands
from oneflow_jax.cli import help as help_texts
from oneflow_jax.errors import UserError

HELP = ("-h", "--help", "-help", "help")


def main(argv: list[str] | None = None) -> None:
    """Run one command; print a `UserError` as a message without a traceback."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        _run_command(*arguments or ["help"])
    except UserError as error:
        sys.exit(f"error: {error}")


def _run_command(name: str, *arguments: str) -> None:
    if name in HELP:
        _print(help_texts.format_help(*arguments[:1]))
    elif name == "--version":
        import oneflow_jax

        _print(f"oneflow_jax {oneflow_jax.__version__}")
    elif set(arguments) & set(HELP[:3]):
        _print(help_texts.format_help(name))
    elif name == "configs":
        _print(_format_configurations(*arguments))
    elif name == "demo":
        from oneflow_jax.demo import __main__ as demo

        demo.main(list(arguments))
    elif name == "serve":
        from oneflow_jax.serving import server

        server.main(arguments)
    else:
        _run_mode(name, arguments)


def _run_mode(name: str, arguments: tuple[str, ...]) -> None:
    command = commands.find(name)
    line = commands.make_arguments(name, arguments)
    if commands.PRETRAINED in line:
        shipped.copy_to(commands.PRETRAINED.partition("=")[2])
    from oneflow_jax import main as program

    program.main(["oneflow", *line], command.required_key)


def _format_configurations(*arguments: str) -> str:
    if not arguments:
        return help_texts.format_configurations()
    from oneflow_jax.cli import configuration

    return configuration.format_config(["oneflow", f"--config={arguments[0]}", *arguments[1:]])


def _print(text: str) -> None:
    """Print a text, of which `oneflow configs | head` reads only the first lines."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes the output again at exit, so lead it to a place that accepts it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
