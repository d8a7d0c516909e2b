"""Prediction types of the continuous flow: the network predicts x_1 or the velocity v.

The loss of both types is the squared error of the velocity; only the output of the network differs.
To predict v, the network must carry the full noise of a patch through all layers. A network whose
width is small compared to the patch cannot do that, but it can predict the clean patch (Li and He,
Back to Basics: Let Denoising Generative Models Denoise, 2025).
"""

import dataclasses

from clu import metrics

from oneflow_jax.flows import gaussian, losses
from oneflow_jax.shapes import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class X1Prediction:
    """x1 prediction: the network outputs x̂_1, and v̂ = (x̂_1 - x_t) / (1 - t).

    Attributes:
        min_one_minus_t: lower bound of 1 - t in the loss. The velocity loss weights an error of
            x̂_1 by 1/(1-t)^2, which diverges as t -> 1. Li and He use 0.05; a higher value gives
            late times less weight.
    """

    min_one_minus_t: float = 0.05

    def to_x1(
        self, output: Float[Array, "*b L n"], x_t: Float[Array, "*b L n"], t: Float[Array, "*b L"]
    ) -> Float[Array, "*b L n"]:
        """Return the x1 prediction x̂_1."""
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
        """Return the loss |v̂ - v|^2, with the lower bound of 1 - t in both velocities."""
        return self.map_loss(output, x_1, gaussian.interpolate(x_0, x_1, t), t, scored)

    def map_loss(
        self,
        output: Float[Array, "L n"],
        mean: Float[Array, "L n"],
        x_t: Float[Array, "L n"],
        t: Float[Array, "L"],
        scored: Bool[Array, "L"],
    ) -> metrics.Average:
        """Return the loss with `mean` as x_1, the ψ that a flow map should predict."""
        predicted = gaussian.velocity(output, x_t, t, self.min_one_minus_t)
        target = gaussian.velocity(mean, x_t, t, self.min_one_minus_t)
        return losses.squared_error(predicted, target, scored)


@dataclasses.dataclass(frozen=True)
class VelocityPrediction:
    """Velocity prediction: the network outputs v̂, and x̂_1 = x_t + (1 - t) v̂."""

    def to_x1(
        self, output: Float[Array, "*b L n"], x_t: Float[Array, "*b L n"], t: Float[Array, "*b L"]
    ) -> Float[Array, "*b L n"]:
        """Return the x1 prediction x̂_1."""
        return gaussian.x1_from_velocity(output, x_t, t)

    def loss(
        self,
        output: Float[Array, "L n"],
        x_0: Float[Array, "L n"],
        x_1: Float[Array, "L n"],
        t: Float[Array, "L"],
        scored: Bool[Array, "L"],
    ) -> metrics.Average:
        """Return the loss |v̂ - (x_1 - x_0)|^2."""
        del t
        return losses.squared_error(output, x_1 - x_0, scored)

    def map_loss(
        self,
        output: Float[Array, "L n"],
        mean: Float[Array, "L n"],
        x_t: Float[Array, "L n"],
        t: Float[Array, "L"],
        scored: Bool[Array, "L"],
    ) -> metrics.Average:
        """Return the loss |v̂ - (mean - x_t) / (1 - t)|^2 of a flow map whose ψ should be `mean`."""
        target = gaussian.velocity(mean, x_t, t, min_one_minus_t=1e-3)
        return losses.squared_error(output, target, scored)


PredictionType = X1Prediction | VelocityPrediction
