"""Random access to the records of many array_record files, of which only some are open at a time.

Grain's `ArrayRecordDataSource` keeps each file open that it has read from. A global shuffle reads
from all files, so data in more files than a process may open (`ulimit -n`) could not be read.
"""

import bisect
import collections
import itertools
import threading
from collections.abc import Sequence
from typing import overload

from array_record.python.array_record_module import ArrayRecordReader

MAX_OPEN_FILES = 128
"""Maximum number of files that one object keeps open.

The usual limit of a process is 1,024 files. Opening a file takes a fraction of a millisecond.
"""


class RecordFiles(Sequence[bytes]):
    """The records of several files, in the order of the files; picklable, and safe for threads.

    Attributes:
        paths: paths of the files.
        counts: number of records of each file.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int] | None = None) -> None:
        """Store the paths; without `counts`, open each file once to read its number of records.

        Raises:
            ValueError, RuntimeError: a file is not a complete array_record file; raised when the
                file is opened.
        """
        self.paths = tuple(paths)
        self.counts = tuple(map(_count_records, paths) if counts is None else counts)
        self._ends = list(itertools.accumulate(self.counts))
        self._readers: collections.OrderedDict[int, ArrayRecordReader] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["RecordFiles"], tuple[tuple[str, ...], tuple[int, ...]]]:
        return RecordFiles, (self.paths, self.counts)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """Read the record at `index`, 0 to `len` - 1."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"{index=} of {len(self)} records")
        number = bisect.bisect_right(self._ends, index)
        first = self._ends[number] - self.counts[number]
        return self._open(number).read([index - first])[0]

    def _open(self, number: int) -> ArrayRecordReader:
        """Return the reader of a file. The caller's reference keeps a dropped reader open."""
        with self._lock:
            if number not in self._readers:
                self._readers[number] = _make_reader(self.paths[number])
            self._readers.move_to_end(number)
            if len(self._readers) > MAX_OPEN_FILES:
                self._readers.popitem(last=False)
            return self._readers[number]


def _make_reader(path: str) -> ArrayRecordReader:
    # Records are read in random order, so records that follow are rarely the next to be read.
    return ArrayRecordReader(
        path, options="readahead_buffer_size:0", file_reader_buffer_size=32_768
    )


def _count_records(path: str) -> int:
    reader = _make_reader(path)
    try:
        return reader.num_records()
    finally:
        reader.close()
