"""Latents are made once: a data set's pictures through a learned codec, into files.

Each process of a pod encodes its share of the shards; a preparation that was killed goes on with
the shards that are missing.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from etils import epath

from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.data import latents
from oneflow_jax.data.document import Document, EncodedImage, Image
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, metric_writer

BATCH = 64
"""Documents whose pictures are encoded together."""

CACHE_SIZE = 4_096
"""Pictures whose latents are kept, in case they come again."""


@dataclasses.dataclass(frozen=True)
class LatentDataset:
    """A data set's latents by one codec, made when they are first asked for.

    Attributes:
        folder: of this data set and this codec.
        autoencoder: the codec.
        splits: what opens each split; the first one's latents are measured.
        pixels: height and width that pictures must have.
    """

    folder: epath.Path
    autoencoder: Autoencoder
    splits: Mapping[str, Callable[[], Sequence[Document]]]
    pixels: int

    def index(self) -> latents.LatentIndex:
        """What the folder holds, after all that is missing has been made.

        Raises:
            UserError: latents of another codec are there, or a picture has another size.
        """
        found = self._load_index()
        # Nobody makes what another has yet to look for, else they would not all come here again.
        distributed.barrier()
        if found is not None:
            return found
        counts = {}
        for split, opener in self.splits.items():
            source = opener()
            counts[split] = len(source)
            self._encode(split, source)
        distributed.barrier()
        if distributed.is_primary():
            latents.write_index(self.folder, self.autoencoder.fingerprint, counts)
        distributed.barrier()
        return latents.read_index(self.folder / latents.INDEX_FILE, self.autoencoder.fingerprint)

    def opened(self, split: str) -> latents.LatentSource:
        """The documents of a split, made if need be."""
        return latents.open_split(self.folder, split, self.index().documents[split])

    def _load_index(self) -> latents.LatentIndex | None:
        path = self.folder / latents.INDEX_FILE
        if not path.exists():
            return None
        index = latents.read_index(path, self.autoencoder.fingerprint)
        if latents.all_complete(self.folder, index):
            return index
        logging.info("Latents in %s are missing or cut short: making them anew.", self.folder)
        return None

    def _encode(self, split: str, source: Sequence[Document]) -> None:
        """Writes this process's share of the shards that are not whole."""
        shards = latents.list_shards(self.folder, split, len(source))
        mine = shards[jax.process_index() :: jax.process_count()]
        missing = [shard for shard in mine if not shard.whole]
        if not missing:
            return
        progress = metric_writer.ProgressBar(f"encoding {split}", len(missing), unit="shard")
        for done, shard in enumerate(missing, 1):
            first = shard.number * latents.SHARD_SIZE
            numbers = range(first, min(first + latents.SHARD_SIZE, len(source)))
            # An encoder for each shard: which pictures go through the network together has a say in
            # the last bits of their latents, and a shard is to be the same whoever makes it when.
            encoder = CachingEncoder(self.autoencoder, self.pixels)
            shard.write(_encode_documents(source, encoder, numbers))
            progress.advance(done)
            progress.report(done, shard.path.name)
        progress.close()


class CachingEncoder:
    """Turns the pictures of documents into latents, and remembers some."""

    def __init__(self, autoencoder: Autoencoder, pixels: int) -> None:
        """Encodes pictures of `pixels` x `pixels`."""
        self._autoencoder = autoencoder
        self._pixels = pixels
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, documents: Sequence[Document]) -> Iterator[Document]:
        """The documents with their pictures encoded.

        Raises:
            UserError: a picture has another size.
        """
        new: dict[bytes, np.ndarray] = {}
        for document in documents:
            for picture in document.pictures():
                self._check(picture)
                if _image_hash(picture) not in self._known:
                    new[_image_hash(picture)] = picture
        if len(self._known) + len(new) > CACHE_SIZE:
            self._known = {}
            new = {_image_hash(p): p for document in documents for p in document.pictures()}
        if new:
            encoded = self._autoencoder.encode(np.stack(list(new.values())))
            self._known |= dict(zip(new, encoded, strict=True))
        for document in documents:
            yield Document(
                tuple(
                    EncodedImage(self._known[_image_hash(part.pixels)])
                    if isinstance(part, Image)
                    else part
                    for part in document.parts
                )
            )

    def _check(self, picture: np.ndarray) -> None:
        wanted = (self._pixels, self._pixels, 3)
        if picture.shape != wanted:
            raise UserError(
                f"A picture of shape {picture.shape} in the data set; codec.pixels={self._pixels} "
                f"wants {wanted}: set it, or the size in the data set's own settings."
            )


def _encode_documents(
    source: Sequence[Document], encoder: CachingEncoder, indices: range
) -> Iterator[Document]:
    for first in range(0, len(indices), BATCH):
        yield from encoder([source[n] for n in indices[first : first + BATCH]])


def _image_hash(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
