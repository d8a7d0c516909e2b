import jax.numpy as jnp
import numpy as np

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import Modality
from tests import tiny


def test_free_slots_exist_and_are_not_given():
    canvas = tiny.training_rows(tiny.captions(1))
    kind = jnp.array(
        [[Modality.TEXT, Modality.TEXT, Modality.IMAGE, Modality.IMAGE, Modality.PAD, Modality.PAD]]
    )
    canvas = canvas.replace(modality=kind, is_given=jnp.array([[True, False] * 3]))
    np.testing.assert_array_equal(canvas.to_generate, [[False, True, False, True, False, False]])
    np.testing.assert_array_equal(canvas.is_text, [[True, True] + [False] * 4])
    np.testing.assert_array_equal(canvas.is_image, [[False, False, True, True, False, False]])


def test_noisy_canvas_keeps_the_layout_and_takes_new_content():
    canvas = tiny.training_rows(tiny.captions(2))
    view = tiny.noisy_canvas(canvas)
    for name in ("modality", "segment", "position"):
        np.testing.assert_array_equal(getattr(view, name), getattr(canvas, name))
    again = canvases.noisy_canvas(canvas, view.embeds, canvas.latents, view.time)
    np.testing.assert_array_equal(again.latents, canvas.latents)
    np.testing.assert_array_equal(again.embeds, view.embeds)
    np.testing.assert_array_equal(again.time, view.time)
