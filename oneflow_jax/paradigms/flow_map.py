"""`oneflow` with a flow map, which samples a document in one to four forward passes.

`flows.flow_map` has the equations, and `training.flow_map` the training step. The network has one
more input, the length of the interval (`NoisyCanvas.interval`). At length 0 it makes the x1
prediction, so every sampler of `oneflow` still works.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import Canvas, EmbeddingTable, NoisyCanvas
from oneflow_jax.flows import flow_map, gaussian, losses, tasks
from oneflow_jax.paradigms import oneflow
from oneflow_jax.paradigms.oneflow import FlowState
from oneflow_jax.shapes import Array, Bool, Float, Key, Outputs, Sums

MAP_TERMS = ("text_map", "image_map")
"""Loss terms of the flow map; they have the weights of `text` and `image`."""


@flax.struct.dataclass
class RowInterval:
    """The interval of one row.

    Attributes:
        time: start, middle and end of the interval, as times of each slot. Slots that are not
            corrupted have an interval without length.
        state: x at the start.
        text_scored, image_scored: True where scored.
    """

    time: flow_map.Interval
    state: FlowState
    text_scored: Bool[Array, "L"]
    image_scored: Bool[Array, "L"]


@dataclasses.dataclass(frozen=True)
class FlowMap(oneflow.OneFlow):
    """`OneFlow` whose network also learns the flow map; the text objective is cross-entropy."""

    def counts(self, canvas: Canvas) -> Sums:
        """Count the slots of each modality to generate, for all four terms."""
        counts = super().counts(canvas)
        return counts | dict(zip(MAP_TERMS, (counts["text"], counts["image"]), strict=True))

    def start_interval(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, RowInterval]:
        """Sample an interval, and corrupt a row to its start; see `FlowMapObjective`.

        All slots of a document share the interval. So the tasks with separate times are replaced
        by `joint`.
        """
        key_interval, key_task, *keys = jax.random.split(key, 4)
        mixture = dataclasses.replace(
            self.task_mixture, probs=tasks.merge_into_joint(self.task_mixture.probs)
        )

        def slot_times(number: Float[Array, "L"]) -> Float[Array, "L"]:
            samplers = (self.time_sampler, self.text_time_sampler)
            return mixture.sample(key_task, number, canvas, *samplers, self.text_lead).time

        # The start, middle and end have the same task, so the three calls share a key.
        ends = flow_map.sample_interval(key_interval, u)
        times = jax.vmap(slot_times)(jnp.stack([ends.start, ends.middle, ends.end]))
        time = flow_map.Interval(*times)
        scored = time.end > time.start
        noise, clean = self.sample_states(keys, canvas, table)
        interval = RowInterval(
            time=time,
            state=oneflow.interpolate(noise, clean, time.start),
            text_scored=scored & canvas.is_text,
            image_scored=scored & canvas.is_image,
        )
        return _view(canvas, interval.state, time.start, time.middle), interval

    def advance(
        self, outputs: Outputs, interval: RowInterval, canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, NoisyCanvas]:
        """Return the inputs for the second half, and for the whole interval."""
        x, time = interval.state, interval.time
        table = self.objective.prepare_table(table)
        embeds, _ = self.objective.to_x1(
            outputs[self.objective.head.name], x.embeds, time.start, table
        )
        latents = self.image_prediction.to_x1(outputs["image"], x.latents, time.start)
        middle = jax.tree.map(
            lambda x_s, mean: gaussian.euler_step(x_s, mean, time.start, time.middle),
            x,
            FlowState(embeds=embeds, latents=latents),
        )
        return (
            _view(canvas, middle, time.middle, time.end),
            _view(canvas, x, time.start, time.end),
        )

    def map_loss(
        self,
        outputs: Outputs,
        halves: tuple[Outputs, Outputs],
        interval: RowInterval,
        middle: NoisyCanvas,
    ) -> dict[str, metrics.Average]:
        """Return the terms `text_map`, a KL divergence, and `image_map`, a squared error."""
        x, time = interval.state, interval.time
        weight = flow_map.first_weight(time)[:, None]

        def mix(first: Float[Array, "L n"], second: Float[Array, "L n"]) -> Float[Array, "L n"]:
            return jax.lax.stop_gradient(weight * first + (1 - weight) * second)

        name, to_x1 = self.objective.head.name, self.image_prediction.to_x1
        first, second = halves
        probs = mix(jax.nn.softmax(first[name]), jax.nn.softmax(second[name]))
        patches = mix(
            to_x1(first["image"], x.latents, time.start),
            to_x1(second["image"], middle.latents, time.middle),
        )
        return {
            "text_map": losses.kl_divergence(outputs[name], probs, interval.text_scored),
            "image_map": self.image_prediction.map_loss(
                outputs["image"], patches, x.latents, time.start, interval.image_scored
            ),
        }


def _view(
    canvas: Canvas, x: FlowState, time: Float[Array, "L"], end: Float[Array, "L"]
) -> NoisyCanvas:
    return canvases.noisy_canvas(canvas, x.embeds, x.latents, time, jnp.maximum(end - time, 0.0))
