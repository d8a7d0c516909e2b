"""The program `oneflow`, also run by `python -m oneflow_jax`.

Each command imports its modules when it runs, so help is printed without importing JAX.
"""

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
        print(help_texts.format_help(*arguments[:1]))
    elif name == "--version":
        import oneflow_jax

        print(f"oneflow_jax {oneflow_jax.__version__}")
    elif set(arguments) & set(HELP[:3]):
        print(help_texts.format_help(name))
    elif name == "configs":
        _show_configurations(*arguments)
    elif name == "demo":
        from oneflow_jax.demo import __main__ as demo

        demo.main(list(arguments))
    else:
        _run_mode(name, arguments)


def _run_mode(name: str, arguments: tuple[str, ...]) -> None:
    command = commands.find(name)
    line = commands.make_arguments(name, arguments)
    if commands.PRETRAINED in line:
        shipped.copy_to(commands.PRETRAINED.partition("=")[2])
    from oneflow_jax import main as program

    program.main(["oneflow", *line], command.required_key)


def _show_configurations(*arguments: str) -> None:
    if not arguments:
        print(help_texts.format_configurations())
        return
    from oneflow_jax import main as program

    program.show_config(["oneflow", f"--config={arguments[0]}", *arguments[1:]])


if __name__ == "__main__":
    main()
