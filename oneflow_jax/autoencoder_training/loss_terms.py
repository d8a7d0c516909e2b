"""What is compared of two pictures: terms of the loss, one number for each picture."""

import dataclasses
from typing import Protocol

import jax.numpy as jnp

from oneflow_jax.pretrained import lpips
from oneflow_jax.shapes import Array, Float


class LossTerm(Protocol):
    """A distance of pictures with values from -1 to 1.

    Attributes:
        name: of the term, in logs.
        weight: in the loss.
    """

    name: str
    weight: float

    def __call__(
        self, made: Float[Array, "B H W 3"], real: Float[Array, "B H W 3"]
    ) -> Float[Array, "B"]:
        """The distance of each pair."""


@dataclasses.dataclass(frozen=True)
class SquaredError:
    """The mean of (x̂ - x)^2 over all numbers of a picture."""

    weight: float
    name: str = "pixels"

    def __call__(
        self, made: Float[Array, "B H W 3"], real: Float[Array, "B H W 3"]
    ) -> Float[Array, "B"]:
        """The distance of each pair."""
        return jnp.mean((made - real) ** 2, axis=(1, 2, 3))


@dataclasses.dataclass(frozen=True, eq=False)
class Perceptual:
    """LPIPS, the distance of what a network trained to recognize things sees in them."""

    weight: float
    network: lpips.Params
    name: str = "perceptual"

    def __call__(
        self, made: Float[Array, "B H W 3"], real: Float[Array, "B H W 3"]
    ) -> Float[Array, "B"]:
        """The distance of each pair."""
        return lpips.distance(self.network, made, real)
