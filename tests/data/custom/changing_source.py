"""A source folder that tests edit at random, and the documents that it should contain."""

import csv
import io
import json
import os
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet

from oneflow_jax.data.custom import shard
from tests.data.custom import examples

NUM_ARCHIVES = 3
"""Number of files among which a format of `ARCHIVES` divides all documents."""


def _make_jsonl(records):
    return "\n".join(map(json.dumps, records)).encode()


def _make_json(records):
    return json.dumps(records).encode()


def _make_csv(records):
    file = io.StringIO()
    writer = csv.DictWriter(file, ("image", "text"))
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue().encode()


def _make_parquet(documents):
    file = io.BytesIO()
    pyarrow.parquet.write_table(_make_table(documents), file)
    return file.getvalue()


def _make_arrow(documents):
    file, table = io.BytesIO(), _make_table(documents)
    with pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def _make_table(documents):
    images, texts = zip(*documents.values(), strict=True)
    return pyarrow.table({"image": pyarrow.array(images, "binary"), "text": texts})


def _make_tar(documents):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for key, (image, text) in documents.items():
            for ending, content in (("png", image), ("txt", text.encode())):
                if content is not None:
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


LISTS = {"jsonl": _make_jsonl, "json": _make_json, "csv": _make_csv}
"""Formats in which one file has all texts and the names of the image files."""

ARCHIVES = {
    "parquet": ("parquet", _make_parquet),
    "arrow": ("arrow", _make_arrow),
    "webdataset": ("tar", _make_tar),
}
"""Extensions and writers of formats whose files hold images and texts."""

LAYOUTS = ("pairs", "pages", *LISTS, *ARCHIVES)


def prepare_here(plan, num_workers, lock_fd, command):
    """Replace `prepare._run_workers`: prepare the missing units in this process."""
    del num_workers, lock_fd, command
    for number in range(len(plan.units)):
        if plan.load_marker(number) is None:
            shard.write_shard(plan, number, {}, (-1, ""), lambda *values: None)


class ChangingSource:
    """A folder of documents in one of `LAYOUTS`: a text, and mostly an image of one color.

    Images are files `key.png`, and texts are files `key.txt`, pages `key.md`, or records of one
    file. The files of `ARCHIVES` hold both.
    """

    def __init__(self, folder, seed, layout="pairs", documents=24):
        self.folder, self.layout = folder, layout
        self._rng = np.random.default_rng(seed)
        self._count = 0
        self.texts, self.colors = {}, {}
        if layout in ARCHIVES:
            self._archives = [f"{number}.{ARCHIVES[layout][0]}" for number in range(NUM_ARCHIVES)]
        folder.mkdir(parents=True)
        for _ in range(documents):
            self.add()

    @property
    def format(self):
        """The value of `source.format` for this layout."""
        return "parquet" if self.layout == "arrow" else self.layout

    def expected(self):
        """Return sorted pairs (color, text) of all documents; -1 is the color without an image."""
        return sorted(
            (self.colors.get(key, (-1, -1, -1)), text) for key, text in self.texts.items()
        )

    def edit(self):
        """Edit the folder at random, and return the name of the edit."""
        edits = (self.add, self.add, self.change_image, self.change_image_in_hiding)
        edits += (self.change_text, self.delete, self.delete_image, self.rename, self.touch)
        edits += (self.swap, self.replace)
        edit = edits[self._rng.integers(len(edits))]
        edit()
        return edit.__name__

    def add(self):
        self._count += 1
        key = self._new_key()
        self.texts[key] = f"text {self._count}"
        self.colors[key] = self._new_color()
        self._write(key)

    def change_image(self):
        if self.colors:
            key = self._pick(self.colors)
            self.colors[key] = self._new_color()
            self._write(key)

    def change_image_in_hiding(self):
        """Change an image, but keep the size and the modification time of its file."""
        key = self._pick(self.colors)
        path = self._image_file(key)
        before = path.stat()
        self.colors[key] = self._new_color()
        self._write(key)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_mtime_ns == before.st_mtime_ns

    def change_text(self):
        self._count += 1
        key = self._pick(self.texts)
        self.texts[key] = f"text {self._count}"
        self._write(key)

    def delete(self):
        if len(self.texts) > 12:
            key = self._pick(self.texts)
            del self.texts[key]
            self.colors.pop(key, None)
            self._write(key)

    def delete_image(self):
        if len(self.colors) > 12:
            key = self._pick(self.colors)
            del self.colors[key]
            self._write(key)

    def rename(self):
        self._count += 1
        old, new = self._pick(self.texts), self._new_key()
        if self.layout not in ARCHIVES:
            for ending in ("png", "txt", "md"):
                if (path := self.folder / f"{old}.{ending}").exists():
                    path.rename(self.folder / f"{new}.{ending}")
        self.texts[new] = self.texts.pop(old)
        if old in self.colors:
            self.colors[new] = self.colors.pop(old)
        self._write(old)
        self._write(new)

    def touch(self):
        self._image_file(self._pick(self.colors)).touch()

    def swap(self):
        """Swap the names of two image files.

        The modification time and the size of each file stay the same.
        """
        one, two = self._pick(self.colors), self._pick(self.colors)
        paths = self._image_file(one), self._image_file(two)
        if paths[0] != paths[1]:
            paths[0].rename(self.folder / "swap")
            paths[1].rename(paths[0])
            (self.folder / "swap").rename(paths[1])
            if self.layout in ARCHIVES:
                first, second = _archive_number(one), _archive_number(two)
                names = self._archives
                names[first], names[second] = names[second], names[first]
            else:
                self.colors[one], self.colors[two] = self.colors[two], self.colors[one]

    def replace(self):
        """Write a new image to a new file of the same name and modification time."""
        key = self._pick(self.colors)
        path = self._image_file(key)
        before = path.stat()
        path.rename(self.folder / "old")
        self.colors[key] = self._new_color()
        self._write(key)
        (self.folder / "old").unlink()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _pick(self, keys):
        return sorted(keys)[self._rng.integers(len(keys))]

    def _new_key(self):
        return f"{self._rng.integers(1000):03d}_{self._count}"

    def _new_color(self):
        return tuple(int(x) for x in self._rng.integers(100, 256, 3))

    def _image_file(self, key):
        if self.layout in ARCHIVES:
            return self.folder / self._archives[_archive_number(key)]
        return self.folder / f"{key}.png"

    def _encode_image(self, key):
        """Return the image of a document, or None. BMP files all have the same size."""
        return examples.png(self.colors[key], (4, 4), "BMP") if key in self.colors else None

    def _write(self, key):
        """Write the files that contain a document, if their content has changed."""
        for name, content in self._list_files(key).items():
            path = self.folder / name
            if content is None:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)

    def _list_files(self, key):
        """Return the content, by name, of the files for a document; None for a file to delete."""
        if self.layout in ARCHIVES:
            number = _archive_number(key)
            documents = {
                each: (self._encode_image(each), self.texts[each])
                for each in sorted(self.texts)
                if _archive_number(each) == number
            }
            make = ARCHIVES[self.layout][1]
            return {self._archives[number]: make(documents) if documents else None}
        text = self.texts.get(key)
        files = {f"{key}.png": self._encode_image(key)}
        if self.layout == "pairs":
            files[f"{key}.txt"] = text and text.encode()
        elif self.layout == "pages":
            image = f"![]({key}.png)" if key in self.colors else ""
            files[f"{key}.md"] = text and f"{text}\n\n{image}\n".encode()
        else:
            files[f"all.{self.layout}"] = LISTS[self.layout](
                [
                    {"text": self.texts[each]}
                    | ({"image": f"{each}.png"} if each in self.colors else {})
                    for each in sorted(self.texts)
                ]
            )
        return files


def _archive_number(key):
    return int(key[:3]) % NUM_ARCHIVES
