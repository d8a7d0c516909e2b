"""Reconstruction loss terms: distances between an image and its reconstruction."""

import dataclasses
from typing import Protocol

import jax.numpy as jnp

from oneflow_jax.pretrained import lpips
from oneflow_jax.shapes import Array, Float


class LossTerm(Protocol):
    """A distance between images with values in [-1, 1].

    Attributes:
        name: name of the term in logs.
        weight: weight of the term in the loss.
    """

    name: str
    weight: float

    def __call__(
        self, x_hat: Float[Array, "B H W 3"], x: Float[Array, "B H W 3"]
    ) -> Float[Array, "B"]:
        """Return the distance of each pair of images."""


@dataclasses.dataclass(frozen=True)
class SquaredError:
    """Mean squared error over all values of an image."""

    weight: float
    name: str = "pixels"

    def __call__(
        self, x_hat: Float[Array, "B H W 3"], x: Float[Array, "B H W 3"]
    ) -> Float[Array, "B"]:
        """Return the distance of each pair of images."""
        return jnp.mean((x_hat - x) ** 2, axis=(1, 2, 3))


@dataclasses.dataclass(frozen=True, eq=False)
class Perceptual:
    """LPIPS, a distance between the features of a pretrained image classifier."""

    weight: float
    params: lpips.Params
    name: str = "perceptual"

    def __call__(
        self, x_hat: Float[Array, "B H W 3"], x: Float[Array, "B H W 3"]
    ) -> Float[Array, "B"]:
        """Return the distance of each pair of images."""
        return lpips.distance(self.params, x_hat, x)
