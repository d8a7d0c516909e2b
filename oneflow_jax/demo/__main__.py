"""Serves the page: `oneflow demo [WORKDIR ...]`, or `python -m oneflow_jax.demo`."""

import argparse
import errno
import socket
import sys

from oneflow_jax.demo import runs
from oneflow_jax.errors import UserError, check_between
from oneflow_jax.runtime import host, metric_writer

ADDRESS = "127.0.0.1"
"""Address of the server: only this machine reaches it."""

PORT = 7860

MAX_TRIES = 20
"""Maximum number of ports to try, from the first one upward."""


def main(argv: list[str] | None = None) -> None:
    """Serve the page until the user stops it; print each `UserError` as a message."""
    flags = argparse.ArgumentParser(prog="oneflow demo", description=__doc__)
    flags.add_argument(
        "workdir",
        nargs="*",
        help="folders of runs or exports to offer; the page also offers the shipped model and "
        "those in the folder runs",
    )
    flags.add_argument(
        "--port",
        type=int,
        default=PORT,
        help=f"port of the page, or the next one that is free (default: {PORT})",
    )
    args = flags.parse_args(argv)
    metric_writer.setup_logging()
    try:
        run(args.workdir, args.port)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:  # uvicorn raises it again after Ctrl-C has stopped the server.
        print("The server has stopped.")


def run(folders: list[str], port: int) -> None:
    """Serve the page until the user stops it.

    Raises:
        UserError: FastAPI or uvicorn is not installed, a folder holds no model, or no port is free.
    """
    models = runs.find_models(folders)
    try:
        import uvicorn

        from oneflow_jax.demo import server
        from oneflow_jax.serving import service
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn"):
            raise
        raise UserError(
            f"The page needs {error.name}. Run `make demo`, or pip install -r "
            "requirements-demo.txt."
        ) from error
    with open_port(port) as listener:
        host.configure()
        print(f"Loading the model {next(iter(models))} ...", flush=True)
        app = server.make_app(service.Service(models))
        print(
            f"Open http://{ADDRESS}:{listener.getsockname()[1]} (Ctrl-C stops the server).",
            flush=True,
        )
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        uvicorn.Server(config).run([listener])


def open_port(first: int) -> socket.socket:
    """Return a socket that listens on a port; if the port is taken, on the next free one.

    Raises:
        UserError: the port is out of range, or all tried ports are taken.
    """
    check_between("--port", first, 0, 65_535)
    for port in range(first, min(first + MAX_TRIES, 65_536)):
        listener = socket.socket()
        # Without this option, a port is not free for a minute after its last connection.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, port))
            listener.listen()
        except OSError as error:
            listener.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            continue
        if port != first:
            print(f"--port={first}: taken. The page has port {port}.")
        return listener
    raise UserError(
        f"--port={first}: taken, and so are the next {MAX_TRIES - 1} ports. Give another port."
    )


if __name__ == "__main__":
    main()
