"""Serves the page: `python -m oneflow_jax.demo [WORKDIR ...]`."""

import argparse
import os
import sys

from oneflow_jax.data import emoji_concepts
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import host, metric_writer

PORT = 7860


def main(argv: list[str] | None = None) -> None:
    """Serve the page until the user stops it; print each `UserError` as a message."""
    flags = argparse.ArgumentParser(prog="python -m oneflow_jax.demo", description=__doc__)
    flags.add_argument(
        "workdir", nargs="*", help="folders of runs to offer, in addition to the shipped model"
    )
    flags.add_argument("--port", type=int, default=PORT, help=f"port (default: {PORT})")
    args = flags.parse_args(argv)
    metric_writer.setup_logging()
    try:
        run(args.workdir, args.port)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(folders: list[str], port: int) -> None:
    """Serve the page until the user stops it.

    Raises:
        UserError: Gradio is not installed, a folder holds no model, or the port is taken.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        from oneflow_jax.demo import answers, page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError(
            "The page needs Gradio. Run `make demo`, or pip install -r requirements-demo.txt."
        ) from error
    host.configure()
    built = page.make_page(answers.ModelRegistry(folders), emoji_concepts.ATTRIBUTION)
    print(f"Open http://127.0.0.1:{port} (Ctrl-C stops the server).")
    try:
        page.serve(built, port, wait=True)
    except OSError as error:
        raise UserError(f"--port={port}: {error}. Give another port.") from error


if __name__ == "__main__":
    main()
