"""A model with its parameters: what samplers call."""

import dataclasses

from oneflow_jax.canvas import NoisyCanvas
from oneflow_jax.nn.attention import KVCache
from oneflow_jax.nn.model import Model
from oneflow_jax.shapes import Outputs, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class BoundModel:
    """`model` with `params`; the methods are the model's."""

    model: Model
    params: PyTree

    def __call__(self, view: NoisyCanvas) -> Outputs:
        """What each head says of every slot."""
        return self.model.apply({"params": self.params}, view)

    def cache(self, rows: int, slots: int) -> KVCache:
        """An empty cache."""
        return self.model.cache(rows, slots)

    def prefill(self, view: NoisyCanvas, cache: KVCache) -> tuple[Outputs, KVCache]:
        """What each head says of every slot, and the cache with all of them."""
        return self.model.apply({"params": self.params}, view, cache, method="prefill")

    def after(self, view: NoisyCanvas, cache: KVCache) -> tuple[Outputs, KVCache]:
        """What each head says of slots that come after those in the cache."""
        return self.model.apply({"params": self.params}, view, cache, method="after")
