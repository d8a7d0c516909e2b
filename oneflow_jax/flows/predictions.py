"""What a network may predict of a vector on the straight path, and how it is scored.

The loss is on the velocity in either case, so that the two differ only in what the network must
put out. A narrow network cannot carry the noise of a wide patch through its layers, which
predicting v demands; the clean patch it can (Li and He, Back to Basics: Let Denoising Generative
Models Denoise, 2025).
"""

import dataclasses

from clu import metrics

from oneflow_jax.flows import gaussian, losses
from oneflow_jax.shapes import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class X1Prediction:
    """The network puts out x̂_1; v̂ = (x̂_1 - x_t) / (1 - t).

    Attributes:
        floor: of 1 - t in the loss: an error of x̂_1 weighs 1/(1-t)^2 in v̂, without bound as t
            nears 1. Li and He take 0.05; the higher, the less do late times count.
    """

    floor: float = 0.05

    def clean(
        self, output: Float[Array, "*b L n"], x_t: Float[Array, "*b L n"], t: Float[Array, "*b L"]
    ) -> Float[Array, "*b L n"]:
        """x̂_1."""
        del x_t, t
        return output

    def loss(
        self,
        output: Float[Array, "L n"],
        x_0: Float[Array, "L n"],
        x_1: Float[Array, "L n"],
        t: Float[Array, "L"],
        scored: Bool[Array, "L"],
    ) -> metrics.Average:
        """|v̂ - v|^2, with 1 - t floored in both."""
        x_t = gaussian.interpolate(x_0, x_1, t)
        predicted = gaussian.velocity(output, x_t, t, self.floor)
        target = gaussian.velocity(x_1, x_t, t, self.floor)
        return losses.squared_error(predicted, target, scored)


@dataclasses.dataclass(frozen=True)
class VelocityPrediction:
    """The network puts out v̂; x̂_1 = x_t + (1 - t) v̂."""

    def clean(
        self, output: Float[Array, "*b L n"], x_t: Float[Array, "*b L n"], t: Float[Array, "*b L"]
    ) -> Float[Array, "*b L n"]:
        """x̂_1."""
        return gaussian.x1_from_velocity(output, x_t, t)

    def loss(
        self,
        output: Float[Array, "L n"],
        x_0: Float[Array, "L n"],
        x_1: Float[Array, "L n"],
        t: Float[Array, "L"],
        scored: Bool[Array, "L"],
    ) -> metrics.Average:
        """|v̂ - (x_1 - x_0)|^2."""
        del t
        return losses.squared_error(output, x_1 - x_0, scored)


PredictionType = X1Prediction | VelocityPrediction
