"""Encodes the images of a data set with an autoencoder and stores the latents.

The shards are divided among the processes. If encoding is interrupted, the next run encodes only
the missing shards.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from etils import epath

from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.data import image_shapes, latent_reuse, latents
from oneflow_jax.data.document import Document, EncodedImage, Image, Part
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, metric_writer

BATCH = 64
"""Number of documents whose images are encoded together."""

CACHE_SIZE = 4_096
"""Maximum number of images whose latents are cached."""


@dataclasses.dataclass(frozen=True)
class LatentDataset:
    """Latents of a data set. The autoencoder encodes the images when the latents are first needed.

    Attributes:
        folder: folder of the latents of this data set and this autoencoder.
        autoencoder: autoencoder that encodes the images.
        splits: functions that open the splits, by name. The mean and std of the latents are
            computed on the first split.
        pixels: height and width that square images must have.
        crop_sizes: sizes (height, width) of all images, if they may differ; see
            `image_shapes.ImageShapes.crop_sizes`.
    """

    folder: epath.Path
    autoencoder: Autoencoder
    splits: Mapping[str, Callable[[], Sequence[Document]]]
    pixels: int
    crop_sizes: tuple[image_shapes.Size, ...] = ()

    def build_index(self) -> latents.LatentIndex:
        """Encode all missing shards, and return the index of the folder.

        Raises:
            UserError: the folder holds latents of another codec, or an image has another size.
        """
        with distributed.share_errors():
            index = self._load_index()
        # All processes must take the same branch, even if each host has the latents on its own
        # disk. So first all processes check the index, and only then may a process write.
        indices = distributed.all_gather_json({str(jax.process_index()): index is not None})
        if all(indices.values()):
            return index
        self.folder.mkdir(parents=True, exist_ok=True)
        is_shared = distributed.is_shared(self.folder)
        counts = {}
        with distributed.share_errors():
            for split, opener in self.splits.items():
                source = opener()
                counts[split] = len(source)
                self._encode_split(split, source, is_shared=is_shared)
        if distributed.is_primary() or not is_shared:
            latents.write_index(self.folder, self.autoencoder.fingerprint, counts)
        distributed.barrier()
        return latents.read_index(self.folder / latents.INDEX_FILE, self.autoencoder.fingerprint)

    def open_split(self, split: str) -> latents.LatentSource:
        """Open the documents of a split, after encoding all missing shards."""
        return latents.open_split(self.folder, split, self.build_index().documents[split])

    def _load_index(self) -> latents.LatentIndex | None:
        path = self.folder / latents.INDEX_FILE
        if not path.exists():
            return None
        index = latents.read_index(path, self.autoencoder.fingerprint)
        if latents.all_complete(self.folder, index):
            return index
        logging.info(
            "Latents in %s are missing or truncated. The program encodes these latents again.",
            self.folder,
        )
        return None

    def _encode_split(self, split: str, source: Sequence[Document], *, is_shared: bool) -> None:
        """Write the incomplete shards among those that this process is responsible for.

        If all processes share the folder, they divide the shards among themselves. Otherwise each
        process writes all shards.
        """
        mine = latents.list_shards(self.folder, split, len(source))
        if is_shared:
            mine = mine[jax.process_index() :: jax.process_count()]
        missing = [shard for shard in mine if not shard.is_complete]
        if not missing:
            return
        siblings = latent_reuse.list_siblings(self.folder, self.autoencoder.fingerprint)
        stored = latent_reuse.StoredLatents(siblings)
        progress = metric_writer.ProgressBar(f"encoding {split}", len(missing), unit="shard")
        for done, shard in enumerate(missing, 1):
            first = shard.number * latents.SHARD_SIZE
            numbers = range(first, min(first + latents.SHARD_SIZE, len(source)))
            # Each shard has its own encoder, since the last bits of latents depend on the other
            # images in the batch. So a shard's content does not depend on which shards the process
            # wrote before.
            encoder = CachingEncoder(self.autoencoder, self.pixels, stored, self.crop_sizes)
            shard.write(_encode_documents(source, encoder, numbers))
            progress.advance(done)
            progress.report(done, shard.path.name)
        progress.close()


class CachingEncoder:
    """Encodes the images of documents as latents, and caches the latents of each image."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        pixels: int,
        stored: latent_reuse.StoredLatents | None = None,
        crop_sizes: Sequence[image_shapes.Size] = (),
    ) -> None:
        """Initialize an encoder of `pixels` x `pixels` images, which reuses latents in `stored`.

        With `crop_sizes`, images have any of these sizes.
        """
        self._autoencoder = autoencoder
        self._pixels = pixels
        self._sizes = tuple(crop_sizes) or ((pixels, pixels),)
        self._stored = stored or latent_reuse.StoredLatents()
        self._cache: dict[str, np.ndarray] = {}

    def __call__(self, documents: Sequence[Document]) -> Iterator[Document]:
        """Yield the documents with their images encoded.

        Raises:
            UserError: an image has another size.
        """
        images = {_image_hash(image): image for each in documents for image in each.images()}
        for image in images.values():
            self._check_size(image)
        new = {name: image for name, image in images.items() if name not in self._cache}
        if len(self._cache) + len(new) > CACHE_SIZE:
            self._cache, new = {}, images
        latents_by_hash = {name: self._stored.find(name) for name in new}
        for size in self._sizes:
            missing = [
                name
                for name, values in latents_by_hash.items()
                if values is None and new[name].shape[:2] == size
            ]
            if missing:
                encoded = self._autoencoder.encode(np.stack([new[name] for name in missing]))
                latents_by_hash |= dict(zip(missing, encoded, strict=True))
        self._cache |= latents_by_hash
        for document in documents:
            yield Document(tuple(self._encode_part(part) for part in document.parts))

    def _encode_part(self, part: Part) -> Part:
        if not isinstance(part, Image):
            return part
        name = _image_hash(part.pixels)
        return EncodedImage(self._cache[name], name)

    def _check_size(self, image: np.ndarray) -> None:
        wanted = [(*size, 3) for size in self._sizes]
        if image.shape not in wanted:
            raise UserError(
                f"codec.pixels={self._pixels}: the data set has an image of shape {image.shape} "
                f"instead of {' or '.join(map(str, wanted))}. Change codec.pixels, or the data "
                "set's image size."
            )


def _encode_documents(
    source: Sequence[Document], encoder: CachingEncoder, indices: range
) -> Iterator[Document]:
    for first in range(0, len(indices), BATCH):
        yield from encoder([source[n] for n in indices[first : first + BATCH]])


def _image_hash(image: np.ndarray) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16)
    height, width, _ = image.shape
    if height != width:  # Images of one color and different shapes may have the same bytes.
        digest.update(f"{height} x {width}".encode())
    return digest.hexdigest()
