"""The command `oneflow serve`: loads the models, and serves them until the user stops it."""

import argparse
import contextlib
import pathlib
import socket
import sys
from collections.abc import Sequence

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import host as machine
from oneflow_jax.runtime import metric_writer
from oneflow_jax.serving.guard import LOOPBACK
from oneflow_jax.shipped import PRETRAINED, SHIPPED

PORT = 8000

MIN_TOKEN_LENGTH = 16


def main(argv: Sequence[str] | None = None) -> None:
    """Serve models until the user stops the server; print each `UserError` as a message."""
    flags = argparse.ArgumentParser(prog="oneflow serve", description=__doc__)
    flags.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER")
    flags.add_argument("--host", default="127.0.0.1")
    flags.add_argument("--port", type=int, default=PORT)
    flags.add_argument("--token-file", metavar="FILE")
    args = flags.parse_args(argv)
    metric_writer.setup_logging()
    try:
        run(parse_models(args.model), args.host, args.port, args.token_file)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(models: dict[str, str], host: str, port: int, token_file: str | None) -> None:
    """Serve models until the user stops the server.

    Args:
        models: folder of each model by its name; the first one is the default of requests.
        host: address of the interface to listen on.
        port: port; 0 for any free one.
        token_file: file with the token that clients must send; needed if `host` is not a loopback
            address.

    Raises:
        UserError: FastAPI or uvicorn is not installed, a folder holds no model, the host needs a
            token, the token is wrong, or the port is taken.
    """
    token = read_token(host, token_file)
    try:
        import uvicorn

        from oneflow_jax.serving import http, service
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn"):
            raise
        raise UserError(
            f"oneflow serve needs {error.name}. Run pip install -r requirements-serve.txt."
        ) from error
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(f"--host={host} --port={port}: {error}. Give another one.") from error
    with listener:
        machine.configure()
        served = service.Service(models)
        served.models.load_all()
        app = http.make_app(served, token)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        print(f"Serving {', '.join(models)} at {address} (Ctrl-C stops the server).", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        # After an orderly end, uvicorn raises the signal of Ctrl-C again.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([listener])


def parse_models(given: Sequence[str]) -> dict[str, str]:
    """Convert the values NAME=FOLDER of --model to folders by name.

    Raises:
        UserError: a value has no name or no folder, or two values have the same name.
    """
    models: dict[str, str] = {}
    for value in given:
        name, _, folder = value.partition("=")
        if not name or not folder:
            raise UserError(f"--model={value}: not NAME=FOLDER. Give a name and a run's folder.")
        if name in models:
            raise UserError(f"--model={value}: two models have this name. Give other names.")
        models[name] = folder
    return models or {SHIPPED: str(PRETRAINED)}


def read_token(host: str, token_file: str | None) -> str | None:
    """Read the token that clients must send; None without a file.

    Raises:
        UserError: the host is not a loopback address and there is no file, or the file cannot be
            read, or its token is short or has other characters than ASCII ones.
    """
    if token_file is None:
        if host in LOOPBACK:
            return None
        raise UserError(
            f"--host={host}: other machines can reach it. Give --token-file=FILE, with a token "
            f"that clients must send, or --host={LOOPBACK[0]}."
        )
    try:
        token = pathlib.Path(token_file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--token-file={token_file}: cannot be read ({error}).") from error
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or len(token.split()) != 1:
        raise UserError(
            f"--token-file={token_file}: not a token of {MIN_TOKEN_LENGTH} or more ASCII "
            "characters without spaces. Write a random one to the file."
        )
    return token


if __name__ == "__main__":
    main()
