"""Storage of a run's files in local folders and in Google Cloud Storage (gs://).

An object store writes an object completely or not at all, so a write needs no temporary file. But a
program cannot append to an object, and an object store has no locks. So files that grow are first
written to a local folder and then uploaded. Instead of a lock, an object contains the name of the
process that trains in a folder.

| environment variable     | meaning                                                           |
|--------------------------|-------------------------------------------------------------------|
| STORAGE_EMULATOR_HOST    | server that replaces Google's for all files except arrays         |
| TENSORSTORE_GCS_HTTP_URL | server that replaces Google's for the arrays of checkpoints       |
"""

import contextlib
import fnmatch
import importlib.util
import os
import pathlib
import platform
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import Self

from etils import epath
from etils.epath import gpath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed

_BUCKET_ROOTS = ("gs", "s3", "az", "hf")
"""Names of folders at the root, such as /gs, whose entries epath takes for buckets."""

MARKER = ".oneflow_jax"
"""Empty file in local folders that the program writes to; see `mark_folder`."""

LEASE_FILE = "owner.txt"
"""Object with the name of the process that most recently started to train in a remote folder."""


class LiteralPath(gpath.PosixGPath):
    """A path whose `glob` expands wildcards in the pattern only, and not in the path itself.

    The `glob` of `epath.Path` also expands wildcards in the path, so it finds nothing in a folder
    named `run[1]`. Orbax lists files with `glob` and would write incomplete checkpoints there.
    """

    def glob(self, pattern: str) -> Iterator[Self]:
        """Yield the files and folders below this folder that match a pattern such as `a/b*`."""
        first, _, rest = pattern.partition("/")
        for entry in self.iterdir() if self.is_dir() else ():
            if fnmatch.fnmatchcase(entry.name, first):
                yield from type(self)(entry).glob(rest) if rest else (entry,)


def check_storable(path: str | os.PathLike[str], field: str) -> None:
    """Check that checkpoints can be stored at the path of a run.

    TensorStore replaces a backslash by a slash, and refuses the paths that `escape_local` returns
    for local folders such as /gs.

    Raises:
        UserError: the path has a backslash, or two slashes at its start.
    """
    if os.fspath(path).startswith("//"):
        raise UserError(
            f"{field}={os.fspath(path)[1:]}: checkpoints cannot be stored in a local folder whose "
            f"path begins with {', '.join(f'/{name}' for name in _BUCKET_ROOTS)} or two slashes. "
            "Choose another folder, or give a bucket as gs://BUCKET/FOLDER."
        )
    if "\\" in os.fspath(path):
        raise UserError(
            f"{field}={os.fspath(path)}: checkpoints cannot be stored in a folder with a backslash "
            "in its path. Choose another folder."
        )


def expand_user(path: str | os.PathLike[str], field: str) -> str:
    """Return a path with `~` or `~name` at its start replaced by the home folder.

    A path in a local folder such as /gs is returned in the form that `escape_local` gives it.

    Raises:
        UserError: the user has no home folder.
    """
    text = os.fspath(path)
    if is_remote(text):
        return text
    if not text.startswith("~"):
        return escape_local(text)
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise UserError(
            f"{field}={text}: there is no home folder of this name. Write ./{text} for a folder in "
            "the working folder."
        )
    return escape_local(expanded)


def escape_local(path: str) -> str:
    """Return a local path in a form that epath does not read as the path of a bucket.

    epath represents gs://bucket as /gs/bucket, so it reads a local folder /gs as a list of buckets.
    This function returns paths in such a folder as absolute paths with two slashes at the start,
    which have the same meaning to the operating system. Other paths are returned unchanged.
    """
    absolute = os.path.abspath(path)
    return f"/{absolute}" if absolute.split("/")[1] in _BUCKET_ROOTS else path


def resolve_path(path: str | os.PathLike[str], field: str) -> epath.Path:
    """Expand `~` in the path of a folder, and check that the folder can be used for storage.

    Args:
        path: path of a folder: relative, absolute, with `~` at its start, or gs://.
        field: the flag or key that contains the path, such as `--workdir`.

    Raises:
        UserError: the scheme is not gs://, packages are missing, or the bucket is not accessible.
    """
    path = expand_user(path, field)
    if "://" in path and not path.startswith("gs://"):
        raise UserError(
            f"{field}={path}: unsupported kind of storage. Give gs://BUCKET/FOLDER or a local "
            "folder."
        )
    if "://" in path:
        _check_bucket(path.removeprefix("gs://").partition("/")[0], f"{field}={path}")
    return epath.Path(path)


def check_shared(folder: epath.Path, field: str) -> None:
    """Check that all processes of the run see the same folder; every process must call this.

    Raises:
        UserError: a process does not see a file that the primary process has written there.
    """
    if not is_remote(folder) and not distributed.is_shared(folder):
        raise UserError(
            f"{field}={folder}: the hosts of this run do not see the same folder. All hosts of a "
            "run need the same folder for checkpoints. Give a gs:// path, or a folder on a network "
            "file system.",
            in_all_processes=True,
        )


def mark_folder(folder: str | os.PathLike[str], *, is_ours: bool = False) -> None:
    """Mark a local folder that this program creates or, if `is_ours`, that it created earlier.

    The readers of custom data skip marked folders inside of `source.path`. Otherwise they would
    read the files of a run as documents. A folder that has other files may be the user's, so it is
    not marked. Neither is a folder that is not writable.
    """
    if is_remote(folder):
        return
    with contextlib.suppress(OSError):
        if is_ours or {*os.listdir(folder)} <= {".lock", MARKER}:
            pathlib.Path(folder, MARKER).touch()


def require_local(path: str, field: str) -> None:
    """Check that a path is local, and can be that of a folder.

    Raises:
        UserError: the path is remote, or it is or leads through a file.
    """
    if is_remote(path):
        raise UserError(
            f"{field}={path}: this folder must be local, because training reads its files at "
            "random positions. Give a local folder; missing files are created again."
        )
    check_folder(path, field)


def check_folder(path: str | os.PathLike[str], field: str) -> None:
    """Check that neither a local path nor a part of it is a file; the folder may be missing.

    Raises:
        UserError: the path is or leads through a file.
    """
    if is_remote(path):
        return
    local = pathlib.Path(path)
    for each in (local, *local.parents):
        if os.path.exists(each) and not os.path.isdir(each):
            raise UserError(
                f"{field}={local}: {each} is a file, not a folder. Give another folder."
            )


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is in an object store."""
    return "://" in os.fspath(path)


class StagedDirectory:
    """A local folder to write to. If the target folder is remote, `sync` uploads the files.

    Writers use this class if they append to files or use the operating system's file functions.
    """

    def __init__(self, folder: epath.Path) -> None:
        """Create the folder or, for a remote folder, an empty local one."""
        self._folder = folder
        self._uploaded_sizes: dict[epath.Path, int] = {}
        self.local = epath.Path(tempfile.mkdtemp()) if is_remote(folder) else folder
        self.local.mkdir(parents=True, exist_ok=True)

    def sync(self) -> None:
        """Upload the files whose size has changed since the last upload."""
        if self.local == self._folder:
            return
        for root, _, names in os.walk(self.local):
            for path in (epath.Path(root) / name for name in names):
                size = path.stat().length
                if self._uploaded_sizes.get(path) != size:
                    target = self._folder / path.relative_to(self.local)
                    target.write_bytes(path.read_bytes())
                    self._uploaded_sizes[path] = size

    def close(self) -> None:
        """Upload the files and remove the temporary local folder."""
        self.sync()
        if self.local != self._folder:
            shutil.rmtree(self.local)


class TrainingLease:
    """The right of a run to train in a remote folder, until another run takes over.

    An object in the folder names the run. The object is not a lock, because a killed run would
    leave a lock behind. A later run overwrites the object and trains at once, and the earlier run
    fails at its next save. Local folders have a lock instead; see `run_lock.lock`.
    """

    def __init__(self, folder: epath.Path) -> None:
        """Take over the folder; only the primary process of a run writes the object."""
        marks = is_remote(folder) and distributed.is_primary()
        self._path = folder / LEASE_FILE if marks else None
        self._holder = f"process {os.getpid()} on {platform.node()} ({uuid.uuid4().hex})\n"
        if self._path:
            self._path.write_text(self._holder)

    def check(self) -> None:
        """Check that this run still owns the folder. Call this before each save.

        Raises:
            UserError: another run has taken over the folder.
        """
        holder = self._path.read_text() if self._path else self._holder
        if holder != self._holder:
            raise UserError(
                f"{self._path}: another run has taken over --workdir, {holder.strip()}. This run "
                "saves nothing more. Stop one of the two runs, or give each run its own folder."
            )


def _check_bucket(bucket: str, flag: str) -> None:
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(
            f"{flag}: gs:// needs gcsfs, which is not installed. Run pip install -r "
            "requirements-cloud.txt."
        )
    # These packages are dependencies of gcsfs.
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from google.cloud import storage

    try:
        storage.Client().get_bucket(bucket)  # Orbax needs the same permission, storage.buckets.get.
    except (api.GoogleAPIError, auth.GoogleAuthError, ValueError) as error:
        raise UserError(
            f"{flag}: the bucket {bucket!r} cannot be used. Check that it exists (gcloud storage "
            "buckets create), that you are logged in (gcloud auth application-default login), and "
            "that you have permission for storage.buckets.get and for reading and writing objects. "
            f"{' '.join(str(error).split())}"
        ) from error
