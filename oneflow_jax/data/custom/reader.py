"""Interface of the readers of custom data: settings, work units, and unchecked documents."""

import dataclasses
import fnmatch
import pathlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from etils import epath

from oneflow_jax import errors
from oneflow_jax.data import splits
from oneflow_jax.data.custom import bucket
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.sandbox import SandboxedFolder
from oneflow_jax.runtime import storage

MAX_FILE_BYTES = 256 * 2**20
"""Maximum size of a file that is read as a whole, in bytes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings for reading custom data: `config.source` without `name`.

    Attributes:
        path: a folder or one file, on a disk or in a bucket (gs:// or s3://); with `format` "tfds",
            it may also be the name of a data set.
        format: a key of `formats.READERS`, or "auto" to detect it from the file names.
        pixels: height and width to which images are resized, with white margins.
        crop_sizes: sizes (height, width) in pixels, to the nearest of which images are cropped; ()
            for images with white margins. The sizes follow from `data.aspect_ratios`.
        glob: pattern of the relative paths of the files to read, such as "guide/*".
        image_root: folder below `path` to which image paths in the data are relative. With "",
            several folders are searched; see `image_value.make_locator`.
        columns: columns, fields, features or file extensions to use, in reading order. With (), the
            reader chooses them by name.
        split: split of the TFDS data set to read, for `format` "tfds".
        heldout_fraction: fraction of the documents that are held out, above 0 and below 1.
        deduplicate: whether to keep only the first of documents with equal content.
        max_megapixels: maximum size of an image, in megapixels; larger images are dropped.
        read_timeout: maximum time for reading one document, in seconds. If a document takes longer,
            its process is stopped.
    """

    path: str = ""
    format: str = "auto"
    pixels: int = 24
    glob: str = "*"
    image_root: str = ""
    columns: tuple[str, ...] = ()
    split: str = "train"
    heldout_fraction: float = 0.05
    max_megapixels: float = 50.0
    read_timeout: float = 60.0
    deduplicate: bool = dataclasses.field(default=False, repr=False)  # see `later_fields`
    crop_sizes: tuple[tuple[int, int], ...] = dataclasses.field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Check that the values are in range."""
        if storage.is_remote(self.path):
            bucket.check_readable(self.path)
        if not self.path:
            raise errors.UserError(
                "source.path is empty. Give the folder of your data, as in "
                "--config.source.path=/home/me/pictures."
            )
        errors.check_fraction(
            "source.heldout_fraction", self.heldout_fraction, allow_zero=False, allow_one=False
        )
        for field, least in (("pixels", 1), ("max_megapixels", 0.001), ("read_timeout", 0.1)):
            errors.check_at_least(f"source.{field}", getattr(self, field), least)

    @property
    def later_fields(self) -> str:
        """Fields that are not in `repr`, if they are not at their defaults.

        `repr` names data that earlier versions prepared. It has the same value as in these
        versions, so their data is found.
        """
        crop = f" crop {self.crop_sizes}" if self.crop_sizes else ""
        return (" deduplicate" if self.deduplicate else "") + crop

    @property
    def location(self) -> epath.Path:
        """Value of `path`, with `~` expanded: a file or a folder, on a disk or in a bucket."""
        return epath.Path(storage.expand_user(self.path, "source.path"))

    @property
    def folder(self) -> SandboxedFolder:
        """Folder to read from: `path`, or its parent folder if `path` is a file."""
        if storage.is_remote(self.path):
            parent, is_file = self.path.rpartition("/")[0], self.location.is_file()
            return bucket.BucketFolder(pathlib.Path(), (), parent if is_file else self.path)
        path = pathlib.Path(self.path).expanduser()
        if path.is_file():
            # The user gave the path of this file. So the file may be a link that leads elsewhere.
            return SandboxedFolder.from_path(path.parent, (path.resolve(),))
        return SandboxedFolder.from_path(path)

    def list_files(self, extensions: Sequence[str]) -> list[str]:
        """List relative paths of files with these extensions that match `glob`.

        If `path` is a file, return only this file, with any extension.
        """
        if self.location.is_file():
            return [self.location.name]
        names = self.folder.list_files(extensions)
        return [name for name in names if fnmatch.fnmatch(name, self.glob)]


@dataclasses.dataclass(frozen=True)
class WorkUnit:
    """Part of the data that one process prepares at a time: files, or a range of their content.

    If a process is killed, only the work on its current unit is lost.

    Attributes:
        files: relative paths of the files.
        start, stop: range in bytes of one file, or in examples of a TFDS data set; 0 and 0 if the
            unit is its whole files.
    """

    files: tuple[str, ...]
    start: int = 0
    stop: int = 0

    def __str__(self) -> str:
        """Return a short description for messages."""
        if len(self.files) > 1:
            return f"{self.files[0]} to {self.files[-1]}"
        return self.files[0] + (f" [{self.start:,} to {self.stop:,}]" if self.stop else "")


@dataclasses.dataclass(frozen=True)
class RawImage:
    """An image that has not been decoded or checked.

    Attributes:
        name: name of the image in the data, with its extension.
        load: function that returns the bytes of its file, or raises `DataError`.
        files: relative paths of the image's file, with and without links resolved; () if the image
            is not in a file of its own.
    """

    name: str
    load: Callable[[], bytes]
    files: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class RawDocument:
    """A document as the reader returns it, before any check.

    Attributes:
        location: description of where the document comes from, for messages.
        parts: parts in reading order; a `DataError` stands for a part that cannot be used.
        error: error that makes the whole document unusable, or None.
        used: names of the fields or columns that the parts come from.
        unused: names of the fields, columns or archive members that were not used.
        notes: choices that were made between fields, such as "the text is 'caption', not 'title'".
    """

    location: str
    parts: tuple[str | bytes | RawImage | DataError, ...] = ()
    error: DataError | None = None
    used: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class FormatReader(Protocol):
    """Reader of one data format. Both methods receive the same settings."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List all units of work, in an order that depends on the files alone.

        Raises:
            UserError: the folder has no files of this format, or a package is missing.
        """
        ...

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield the documents of a unit, in order.

        Raises:
            DataError: the rest of the unit cannot be read.
        """
        ...


def list_file_units(settings: Settings, extensions: Sequence[str]) -> list[WorkUnit]:
    """List one unit per file with one of the extensions.

    Raises:
        UserError: the folder has no such file.
    """
    files = settings.list_files(extensions)
    if not files:
        names = " or ".join(extensions)
        raise errors.UserError(
            f"source.path={settings.path}: no {names} file found. Give a folder that has one, or "
            "change source.format or source.glob."
        )
    return [WorkUnit((name,)) for name in files]


def chunk_stably(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Divide sorted names into chunks of `size` names on average, and at most `4 * size`.

    The hash of a name decides whether a chunk ends after this name. An added or removed name
    therefore changes only its own chunk and at most a few adjacent chunks. The units of all other
    chunks need not be prepared again.
    """
    first = 0
    for number, name in enumerate(names, 1):
        full = number - first == 4 * size
        if full or splits.hash_bucket(repr(name), size) == 0 or number == len(names):
            yield names[first:number]
            first = number


def locate_image(folder: SandboxedFolder, path: object, referrer: str = "") -> RawImage | DataError:
    """Return the image at a path in the data, or an error if the path is not allowed."""
    return find_image(folder, path, referrer) or _make_image(folder, path, referrer)


def find_image(
    folder: SandboxedFolder, path: object, referrer: str = ""
) -> RawImage | DataError | None:
    """Return the image at a path in the data, or None if there is no such file.

    If no file has exactly this path, the function looks for the path as other systems write it:
    with slashes in place of the backslashes of Windows, and in the other form of Unicode (a file
    from macOS may have its accents as separate characters).
    """
    for spelling in _list_spellings(path):
        if folder.has_file(spelling, referrer):
            return _make_image(folder, spelling, referrer)
    return None


def _list_spellings(path: object) -> Sequence[object]:
    if not isinstance(path, str):
        return (path,)
    slashed = path.replace("\\", "/")
    forms = (unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))
    return tuple(dict.fromkeys((path, slashed, *forms)))


def _make_image(folder: SandboxedFolder, path: object, referrer: str) -> RawImage | DataError:
    try:
        files = folder.relative_paths(path, referrer)
    except DataError as fault:
        return fault
    return RawImage(str(path), lambda: folder.read_bytes(path, MAX_FILE_BYTES, referrer), files)
