"""The lock of a run's folder, and messages about disks that are full or not writable."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

import filelock
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, storage

LOCK_FILE = ".lock"

_DISK_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
)


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
    """Lock the folder of a run within a `with` block, and create the folder if it is missing.

    If the process is killed, the operating system releases the lock.

    Raises:
        UserError: another run holds the lock, or the disk is full or not writable within the
            block.
    """
    with _translate_os_errors(workdir):
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError) as error:
            raise UserError(
                f"--workdir={workdir}: the folder cannot be created ({error.strerror}). Choose "
                "another folder."
            ) from error
        # Object stores have no locks (see `storage.TrainingLease`). The primary process holds the
        # lock for all processes of a run.
        if storage.is_remote(workdir) or not distributed.is_primary():
            yield
            return
        # A soft lock is only a file, which a killed process would leave behind.
        lock = filelock.FileLock(workdir / LOCK_FILE, fallback_to_soft=False)
        try:
            acquired = lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise _in_use(workdir) from error
        with acquired:
            storage.mark_folder(workdir)
            yield


@contextlib.contextmanager
def read_lock(workdir: epath.Path) -> Iterator[None]:
    """Lock the folder of a run while a `with` block reads it.

    During the block, no run on this machine can change the folder. The function writes nothing:
    if the lock file is missing or cannot be opened, the block runs without a lock. Several
    processes may read the folder at the same time.

    Raises:
        UserError: a run holds the lock; or the disk is full or not writable within the block, for
            example when the page of samples is written.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_translate_os_errors(workdir))
        if not storage.is_remote(workdir):
            with contextlib.suppress(OSError):
                file = stack.enter_context(open(workdir / LOCK_FILE, "rb"))
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise _in_use(workdir) from error
        yield


def check_writable(workdir: epath.Path) -> None:
    """Check that files can be written to the folder of a run.

    Raises:
        UserError: the folder is read-only.
    """
    if not storage.is_remote(workdir) and workdir.exists() and not os.access(workdir, os.W_OK):
        raise UserError(
            f"--workdir={workdir}: the folder is read-only. Give --output=FOLDER to write the "
            "results of --mode=sample and --mode=evaluate to another folder."
        )


@contextlib.contextmanager
def _translate_os_errors(workdir: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRNOS:
            raise
        raise UserError(
            f"{error.filename or workdir}: {error.strerror}. Free some space, make the folder "
            "writable, or choose another --workdir. Earlier checkpoints are complete, and the same "
            "command resumes from the newest one."
        ) from error


def _in_use(workdir: epath.Path) -> UserError:
    return UserError(
        f"--workdir={workdir}: the folder is in use by another run. Wait for that run to end, or "
        "choose another folder."
    )
