"""A folder of small custom data that is edited at random, and the documents that it holds."""

import json
import os

import numpy as np

from oneflow_jax.data.custom import shard
from tests.data.custom import examples


def prepare_here(plan, num_workers, lock_fd, command):
    """Replace `prepare._run_workers`: prepare the missing units in this process."""
    del num_workers, lock_fd, command
    for number in range(len(plan.units)):
        if plan.load_marker(number) is None:
            shard.write_shard(plan, number, {}, (-1, ""), lambda *values: None)


class ChangingSource:
    """Files `key.png` and `key.txt`, or lines of `all.jsonl` that name them; random edits."""

    def __init__(self, folder, seed, layout="pairs", documents=24):
        self.folder, self.layout = folder, layout
        self._rng = np.random.default_rng(seed)
        self._count = 0
        self.texts, self.colors = {}, {}
        folder.mkdir(parents=True)
        for _ in range(documents):
            self.add()

    def expected(self):
        """Return what the folder holds: sorted pairs of color or None, and text."""
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
        key = f"{self._rng.integers(1000):03d}_{self._count}"
        self._write_text(key, f"text {self._count}")
        self._write_image(key)

    def change_image(self):
        if self.colors:
            self._write_image(self._pick(self.colors))

    def change_image_in_hiding(self):
        """Change an image, but not the size and the modification time of its file."""
        key = self._pick(self.colors)
        path = self._path(key, "png")
        before = path.stat()
        self._write_image(key)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_mtime_ns == before.st_mtime_ns

    def change_text(self):
        self._count += 1
        self._write_text(self._pick(self.texts), f"text {self._count}")

    def delete(self):
        if len(self.texts) > 12:
            key = self._pick(self.texts)
            del self.texts[key]
            self._path(key, "txt").unlink()
            if self.colors.pop(key, None):
                self._path(key, "png").unlink()
            self._write_lines()

    def delete_image(self):
        if len(self.colors) > 12:
            key = self._pick(self.colors)
            del self.colors[key]
            self._path(key, "png").unlink()
            self._write_lines()

    def rename(self):
        self._count += 1
        old, new = self._pick(self.texts), f"{self._rng.integers(1000):03d}_{self._count}"
        self._path(old, "txt").rename(self._path(new, "txt"))
        self.texts[new] = self.texts.pop(old)
        if old in self.colors:
            self._path(old, "png").rename(self._path(new, "png"))
            self.colors[new] = self.colors.pop(old)
        self._write_lines()

    def touch(self):
        self._path(self._pick(self.colors), "png").touch()

    def swap(self):
        """Exchange two images by renaming their files, which keeps all their times and sizes."""
        one, two = self._pick(self.colors), self._pick(self.colors)
        if one != two:
            paths = [self._path(key, "png") for key in (one, two)]
            paths[0].rename(self.folder / "swap")
            paths[1].rename(paths[0])
            (self.folder / "swap").rename(paths[1])
            self.colors[one], self.colors[two] = self.colors[two], self.colors[one]

    def replace(self):
        """Replace an image by a new file of the same modification time."""
        key = self._pick(self.colors)
        path, before = self._path(key, "png"), self._path(key, "png").stat()
        path.rename(self.folder / "old")
        self._write_image(key)
        (self.folder / "old").unlink()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _pick(self, keys):
        return sorted(keys)[self._rng.integers(len(keys))]

    def _path(self, key, extension):
        return self.folder / f"{key}.{extension}"

    def _write_text(self, key, text):
        self.texts[key] = text
        self._path(key, "txt").write_text(text)
        self._write_lines()

    def _write_image(self, key):
        color = tuple(int(x) for x in self._rng.integers(100, 256, 3))
        self.colors[key] = color
        # Without compression all files have the same size.
        self._path(key, "png").write_bytes(examples.png(color, (4, 4), "BMP"))
        self._write_lines()

    def _write_lines(self):
        if self.layout == "jsonl":
            lines = [
                json.dumps({"image": f"{key}.png", "text": text})
                if key in self.colors
                else json.dumps({"text": text})
                for key, text in sorted(self.texts.items())
            ]
            (self.folder / "all.jsonl").write_text("\n".join(lines))
