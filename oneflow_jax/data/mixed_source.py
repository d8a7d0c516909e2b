"""A data set that mixes the documents of two others at a fixed ratio."""

import dataclasses
import math

from oneflow_jax.data.document import Document
from oneflow_jax.data.sources import Source


@dataclasses.dataclass(frozen=True)
class MixedSource:
    """The documents of `main`, repeated as a whole, followed by documents of `extra`.

    `main` is repeated until the documents of `extra` have room for their fraction, so that all of
    them take part. The pipeline shuffles the documents.

    Attributes:
        main: the first data set.
        extra: the second data set.
        extra_fraction: fraction of the documents that come from `extra`, above 0 and below 1.
    """

    main: Source
    extra: Source
    extra_fraction: float

    @property
    def _odds(self) -> float:
        return self.extra_fraction / (1 - self.extra_fraction)

    @property
    def _num_main(self) -> int:
        repeats = math.ceil(len(self.extra) / (self._odds * len(self.main)))
        return repeats * len(self.main)

    def __len__(self) -> int:
        return self._num_main + max(1, round(self._num_main * self._odds))

    def __getitem__(self, index: int) -> Document:
        if not 0 <= index < len(self):
            raise IndexError(f"{index=} of {len(self)} documents")
        if index < self._num_main:
            return self.main[index % len(self.main)]
        return self.extra[(index - self._num_main) % len(self.extra)]
