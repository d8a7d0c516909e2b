"""What readers of the user's data hand on: documents as found, nothing checked yet."""

import dataclasses
import fnmatch
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from oneflow_jax import errors
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.sandbox import SandboxedFolder

MAX_FILE_BYTES = 256 * 2**20
"""Files of pictures and pages are read up to this size."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How own data are read: `config.source`, but for its name.

    Attributes:
        path: a folder or one file; of `kind` "tfds" the data set's name.
        kind: one of `formats.READERS`, or "auto" to tell by the files' names.
        pixels: height and width that pictures are resized to.
        files: a pattern of the relative paths of what is read, as in "guide/*".
        images: folder of the pictures that JSON lines name, below `path`; "" for the lines' own.
        fields: columns, features or file endings to take, in reading order; () for all that there
            are, pictures first.
        split: of the data set that `kind` "tfds" names.
        held_out: share of the documents that training does not see, above 0 and below 1.
        megapixels: pictures of more are dropped.
        patience: seconds over one document after which its reader is stopped.
    """

    path: str = ""
    kind: str = "auto"
    pixels: int = 24
    files: str = "*"
    images: str = ""
    fields: tuple[str, ...] = ()
    split: str = "train"
    held_out: float = 0.05
    megapixels: float = 50.0
    patience: float = 60.0

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if not self.path:
            raise errors.UserError(
                "source.path is empty: give the folder of your data, as in "
                "--config.source.path=/home/me/pictures"
            )
        if not 0 < self.held_out < 1:
            raise errors.UserError(
                f"source.held_out={self.held_out}: give a share above 0 and below 1"
            )
        for field, least in (("pixels", 1), ("megapixels", 0.001), ("patience", 0.1)):
            if getattr(self, field) < least:
                value = getattr(self, field)
                raise errors.UserError(f"source.{field}={value}: give {least} or more")

    @property
    def folder(self) -> SandboxedFolder:
        """The folder to read in: `path`, or that of the one file."""
        path = pathlib.Path(self.path).expanduser()
        return SandboxedFolder.at(path.parent if path.is_file() else path)

    def list_files(self, endings: Sequence[str]) -> list[str]:
        """Relative paths of the files to read: of those that end so, or the one that `path` is."""
        path = pathlib.Path(self.path).expanduser()
        if path.is_file():
            return [path.name]
        found = self.folder.files(endings)
        return [name for name in found if fnmatch.fnmatch(name, self.files)]


@dataclasses.dataclass(frozen=True)
class WorkUnit:
    """What one process reads in one go, and what is lost when it is killed.

    Attributes:
        files: relative paths.
        start, stop: of the one file: bytes, rows or examples, as its reader understands them.
    """

    files: tuple[str, ...]
    start: int = 0
    stop: int = 0

    def __str__(self) -> str:
        """For people."""
        if len(self.files) > 1:
            return f"{self.files[0]} to {self.files[-1]}"
        return self.files[0] + (f" [{self.start:,} to {self.stop:,}]" if self.stop else "")


@dataclasses.dataclass(frozen=True)
class RawImage:
    """A picture that has not been looked at.

    Attributes:
        name: as the data has it, with its extension.
        load: gives the bytes of its file; raises `Fault`.
    """

    name: str
    load: Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class RawDocument:
    """One document as found; `where` is for people, `parts` are in reading order.

    A fault among the parts is a part that is lost; a `fault` is the whole document.
    """

    where: str
    parts: tuple[str | bytes | RawImage | DataError, ...] = ()
    fault: DataError | None = None


class FormatReader(Protocol):
    """One kind of data. Its methods are given the same settings always."""

    def units(self, settings: Settings) -> list[WorkUnit]:
        """All there is to read, in an order that depends on the files alone.

        Raises:
            UserError: there is nothing of this kind, or a package is missing.
        """
        ...

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """The documents of a unit, in order.

        Raises:
            Fault: the rest of the unit cannot be read.
        """
        ...


def locate_image(folder: SandboxedFolder, path: object, referrer: str = "") -> RawImage | DataError:
    """The picture in a file that data name; a path that may not be is told at once."""
    try:
        folder.resolve(path, referrer)
    except DataError as fault:
        return fault
    return RawImage(str(path), lambda: folder.bytes(path, MAX_FILE_BYTES, referrer))
