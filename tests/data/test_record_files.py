"""Tests of reading many array_record files with few of them open."""

import concurrent.futures
import pickle
import subprocess
import sys

import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from oneflow_jax.data import record_files

COUNTS = (3, 1, 0, 4)


def write_files(folder, counts):
    """Write files whose records are `FILE/NUMBER`; return their paths."""
    paths = []
    for number, count in enumerate(counts):
        paths.append(str(folder / f"{number:04d}.array_record"))
        writer = ArrayRecordWriter(paths[-1], "group_size:1")
        for record in range(count):
            writer.write(f"{number}/{record}".encode())
        writer.close()
    return paths


@pytest.fixture
def expected():
    return [f"{n}/{k}".encode() for n, count in enumerate(COUNTS) for k in range(count)]


@pytest.mark.parametrize("counts", [None, COUNTS])
def test_records_come_in_the_order_of_the_files(tmp_path, expected, counts):
    files = record_files.RecordFiles(write_files(tmp_path, COUNTS), counts)
    assert len(files) == sum(COUNTS)
    assert list(files) == expected
    assert files[2:5] == expected[2:5]
    assert [files[index] for index in reversed(range(len(files)))] == expected[::-1]
    for outside in (-1, len(files)):
        with pytest.raises(IndexError):
            files[outside]


def test_a_pickled_copy_reads_the_same_records(tmp_path, expected):
    files = record_files.RecordFiles(write_files(tmp_path, COUNTS))
    assert files[0] == expected[0]  # A reader is open, and readers cannot be pickled.
    assert list(pickle.loads(pickle.dumps(files))) == expected


def test_threads_read_while_files_are_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(record_files, "MAX_OPEN_FILES", 2)
    counts = [5] * 12
    files = record_files.RecordFiles(write_files(tmp_path, counts), counts)
    order = [(7 * index) % len(files) for index in range(6 * len(files))]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(files.__getitem__, order))
    assert found == [f"{index // 5}/{index % 5}".encode() for index in order]
    assert len(files._readers) <= 2


READ_ALL = """
import resource, sys
from oneflow_jax.data import record_files
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
record_files.MAX_OPEN_FILES = int(sys.argv[1])
files = record_files.RecordFiles(sys.argv[2:])
print(sum(len(files[index]) for index in range(len(files))))
"""


def test_more_files_than_the_process_may_open(tmp_path):
    paths = write_files(tmp_path, [1] * 150)
    few, many = (
        subprocess.run(
            [sys.executable, "-c", READ_ALL, str(limit), *paths], capture_output=True, text=True
        )
        for limit in (32, 150)
    )
    assert int(few.stdout) == sum(len(f"{number}/0") for number in range(150)), few.stderr
    assert "Too many open files" in many.stderr
