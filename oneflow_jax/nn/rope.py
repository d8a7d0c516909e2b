"""Rotary position embeddings (Su et al., RoFormer, 2021): order, row and column of each slot."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from oneflow_jax.shapes import Array, Float, Int

THETA_GRID = 100.0
"""Longest wavelength of rows and columns in the layout "axial", divided by 2 pi."""

LAYOUTS = ("axial", "mrope")
"""Layouts of the angles of a head.

"axial": half of the angles encode the order, a quarter the row, and a quarter the column. "mrope":
all angles encode the order, as in language models, so text slots are rotated exactly as there. The
row is added to the order in every third angle, and the column in every third (Qwen3-VL, 2025).
"""


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """Scaling of the frequencies of Llama 3.1, for texts longer than those of its pretraining.

    Frequencies with fewer than `low_freq_factor` periods in `original_length` positions are divided
    by `factor`. Those with more than `high_freq_factor` periods stay. Between them, the result is
    interpolated.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: float

    def scale(self, frequencies: Float[np.ndarray, "h"]) -> Float[np.ndarray, "h"]:
        """Return the scaled frequencies, in radians per position."""
        periods = self.original_length * frequencies / (2 * math.pi)
        kept = (periods - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = np.clip(kept, 0, 1)
        return kept * frequencies + (1 - kept) * frequencies / self.factor


@dataclasses.dataclass(frozen=True)
class LinearScaling:
    """Scaling that divides all frequencies by `factor`, as if positions were closer together."""

    factor: float

    def scale(self, frequencies: Float[np.ndarray, "h"]) -> Float[np.ndarray, "h"]:
        """Return the scaled frequencies, in radians per position."""
        return frequencies / self.factor


SCALINGS = {"linear": LinearScaling, "llama3": Llama3Scaling}
"""Scalings of the frequencies, by the name that follows in `Rope.scaling`."""


@dataclasses.dataclass(frozen=True)
class Rope:
    """Parameters of the rotary angles.

    Attributes:
        layout: one of `LAYOUTS`.
        theta: longest wavelength of the order, divided by 2 pi.
        scaling: () for none, or a name in `SCALINGS` and its numbers; only for "mrope".
    """

    layout: str = "axial"
    theta: float = 10_000.0
    scaling: tuple[str | float, ...] = ()

    def angles(
        self, position: Int[Array, "B L 3"], head_width: int
    ) -> tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]]:
        """Return cosine and sine of each slot's rotary angles.

        Angles are float32 for every dtype of the network: bfloat16 rounds 257 to 256.

        Args:
            position: (order, row, column) of each slot.
            head_width: width of one head, a multiple of 8; it has `head_width / 2` angles.
        """
        make_angles = {"axial": self._axial_angles, "mrope": self._mrope_angles}[self.layout]
        angle = make_angles(position, head_width)[..., None, :]
        return jnp.cos(angle), jnp.sin(angle)

    def _axial_angles(
        self, position: Int[Array, "B L 3"], head_width: int
    ) -> Float[Array, "B L h"]:
        quarter = head_width // 8
        angles = [
            jnp.multiply.outer(
                position[..., axis].astype(jnp.float32), base ** -(jnp.arange(n) / n)
            )
            for axis, base, n in (
                (0, self.theta, 2 * quarter),
                (1, THETA_GRID, quarter),
                (2, THETA_GRID, quarter),
            )
        ]
        return jnp.concatenate(angles, axis=-1)

    def _mrope_angles(
        self, position: Int[Array, "B L 3"], head_width: int
    ) -> Float[Array, "B L h"]:
        count = head_width // 2
        frequencies = self.theta ** -(np.arange(count) / count)
        if self.scaling:
            name, *numbers = self.scaling
            frequencies = SCALINGS[name](*numbers).scale(frequencies)
        # A text slot has row and column 0, so that its coordinates are equal.
        coordinates = position.at[..., 1:].add(position[..., :1])[..., np.arange(count) % 3]
        return coordinates.astype(jnp.float32) * jnp.asarray(frequencies, jnp.float32)[None, None]


def apply(
    x: Float[Array, "B L H A"], angles: tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]]
) -> Float[Array, "B L H A"]:
    """Rotate each pair (x_i, x_{i + A/2}) by angle i, as in Su et al., RoFormer, eq. 34."""
    cos, sin = angles
    cos = jnp.concatenate([cos, cos], axis=-1)
    sin = jnp.concatenate([-sin, sin], axis=-1)
    whole = x.astype(jnp.float32)
    # x * cos + swap_halves(x) * sin. Rotating the two halves separately and concatenating them
    # takes 1.1 times as long per layer on XLA's CPU backend.
    swapped = jnp.roll(whole, x.shape[-1] // 2, axis=-1)
    return (whole * cos + swapped * sin).astype(x.dtype)
