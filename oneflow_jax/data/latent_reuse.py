"""Reuse of latents that the same codec encoded for other data.

The hash of an image identifies its latents. So when a data set changes, only new images are
encoded.
"""

import functools
from collections.abc import Iterable

import numpy as np
from etils import epath

from oneflow_jax.data import latents
from oneflow_jax.errors import UserError

_OPEN_DOCUMENTS = 256
"""Number of documents whose latents are kept in memory."""


class StoredLatents:
    """Read access to the latents in several folders of one codec."""

    def __init__(self, folders: Iterable[epath.Path] = ()) -> None:
        """Index the folders without reading latents."""
        self._places: dict[str, tuple[str, int, int]] = {}
        for folder in folders:
            for path, hashes in latents.list_hashes(folder):
                for document, images in enumerate(hashes):
                    for number, image_hash in enumerate(images):
                        self._places[image_hash] = path, document, number
        self._places.pop("", None)
        self._read = functools.lru_cache(_OPEN_DOCUMENTS)(latents.read_latents)

    def find(self, image_hash: str) -> np.ndarray | None:
        """Return the latents of an image, or None if no folder has readable latents of it."""
        if image_hash not in self._places:
            return None
        path, document, number = self._places[image_hash]
        try:
            return self._read(path, document)[number]
        except (UserError, OSError, IndexError):  # The shard is damaged or was just deleted.
            return None


def list_siblings(folder: epath.Path, fingerprint: str) -> list[epath.Path]:
    """List the folders next to `folder` that hold latents of the codec with this fingerprint."""
    if not folder.parent.exists():
        return []
    return sorted(
        path
        for path in folder.parent.iterdir()
        if path.name.endswith(f"_{fingerprint}") and path != folder
    )
