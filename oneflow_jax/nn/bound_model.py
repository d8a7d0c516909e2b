"""A model together with its parameters: the network that samplers call."""

import dataclasses

from oneflow_jax.canvas import NoisyCanvas
from oneflow_jax.nn.attention import KVCache
from oneflow_jax.nn.model import Model
from oneflow_jax.shapes import Outputs, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class BoundModel:
    """`model` with `params`; the methods call those of the model with the same names."""

    model: Model
    params: PyTree

    def __call__(self, view: NoisyCanvas) -> Outputs:
        """Return the output of each head for every slot."""
        return self.model.apply({"params": self.params}, view)

    def init_cache(self, batch_size: int, num_slots: int) -> KVCache:
        """Create an empty KV cache."""
        return self.model.init_cache(batch_size, num_slots)

    def prefill(self, view: NoisyCanvas, cache: KVCache) -> tuple[Outputs, KVCache]:
        """Run the model on a prompt, and write its slots to an empty KV cache."""
        return self.model.apply({"params": self.params}, view, cache, method="prefill")

    def decode(self, view: NoisyCanvas, cache: KVCache) -> tuple[Outputs, KVCache]:
        """Run the model on slots that follow those in the KV cache."""
        return self.model.apply({"params": self.params}, view, cache, method="decode")
