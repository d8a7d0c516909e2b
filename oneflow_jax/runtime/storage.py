"""Where a run's files are: folders of this machine, and folders of Google Cloud Storage (gs://).

An object appears there whole or not at all, so that a write needs no draft; but it never grows, and
there are no locks. What appends is staged on this machine; and who trains in a folder is marked by
an object.

| environment              | what it is for                                                    |
|--------------------------|-------------------------------------------------------------------|
| STORAGE_EMULATOR_HOST    | another address than Google's, for everything but arrays          |
| TENSORSTORE_GCS_HTTP_URL | the same for the arrays of checkpoints, which TensorStore writes  |
"""

import importlib.util
import os
import platform
import shutil
import tempfile
import uuid

from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed

LEASE_FILE = "owner.txt"
"""Names the process that began, last of all, to train in a folder of an object store."""


def resolve_path(path: str, field: str) -> epath.Path:
    """The path, once it is known that something can be stored there.

    Args:
        path: of a folder, relative, absolute or gs://.
        field: what named it, as in `--workdir`.

    Raises:
        UserError: another kind of store, packages are missing, or the bucket is closed to us.
    """
    if "://" in path and not path.startswith("gs://"):
        raise UserError(f"{field}={path}: give gs://BUCKET/FOLDER, or a folder of this machine.")
    if "://" in path:
        _check_bucket(path.removeprefix("gs://").partition("/")[0], f"{field}={path}")
    return epath.Path(path)


def require_local(path: str, field: str) -> None:
    """Refuses a remote folder.

    Raises:
        UserError: it is one.
    """
    if is_remote(path):
        raise UserError(
            f"{field}={path}: give a folder of this machine; what is kept there is read at random, "
            "all the time, and made anew where it is missing."
        )


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether it is in an object store."""
    return "://" in os.fspath(path)


class StagedDirectory:
    """A folder that is written on this machine; if it is a remote one, then copied by `upload`.

    For what writes with the operating system's own calls, or bit by bit.
    """

    def __init__(self, folder: epath.Path) -> None:
        """Makes the folder, or for a remote one an empty one on this machine."""
        self._folder = folder
        self._sent: dict[epath.Path, int] = {}
        self.local = epath.Path(tempfile.mkdtemp()) if is_remote(folder) else folder
        self.local.mkdir(parents=True, exist_ok=True)

    def upload(self) -> None:
        """Copies the files that have grown since."""
        if self.local == self._folder:
            return
        for root, _, names in os.walk(self.local):
            for path in (epath.Path(root) / name for name in names):
                size = path.stat().length
                if self._sent.get(path) != size:
                    target = self._folder / path.relative_to(self.local)
                    target.write_bytes(path.read_bytes())
                    self._sent[path] = size

    def close(self) -> None:
        """Uploads, and removes what was only for that."""
        self.upload()
        if self.local != self._folder:
            shutil.rmtree(self.local)


class TrainingLease:
    """Marks a remote folder as this process's to train in, until another does the same.

    It is no lock, which a killed run would leave behind: whoever comes last goes on at once, and
    the one before is told at its next save. Folders of this machine have a lock, in `workdir`.
    """

    def __init__(self, folder: epath.Path) -> None:
        """Takes over; of several processes of a run, the leader does."""
        marks = is_remote(folder) and distributed.is_primary()
        self._path = folder / LEASE_FILE if marks else None
        self._name = f"process {os.getpid()} on {platform.node()} ({uuid.uuid4().hex})\n"
        if self._path:
            self._path.write_text(self._name)

    def check(self) -> None:
        """Call before anything is saved.

        Raises:
            UserError: another has taken over.
        """
        found = self._path.read_text() if self._path else self._name
        if found != self._name:
            raise UserError(
                f"{self._path}: another run has taken over --workdir, {found.strip()}. This one "
                "saves nothing more: stop one of the two, or give them folders of their own."
            )


def _check_bucket(bucket: str, flag: str) -> None:
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{flag} needs gcsfs: pip install -r requirements-cloud.txt.")
    # It brings these along.
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from google.cloud import storage

    try:
        storage.Client().get_bucket(bucket)  # As orbax does first of all.
    except (api.GoogleAPIError, auth.GoogleAuthError, ValueError) as error:
        raise UserError(
            f"{flag}: the bucket {bucket!r} cannot be used. Is it there (gcloud storage buckets "
            "create), are you logged in (gcloud auth application-default login), and may you do "
            "storage.buckets.get on it, besides reading and writing objects? "
            f"{' '.join(str(error).split())}"
        ) from error
