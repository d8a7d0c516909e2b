import jax.numpy as jnp
import numpy as np

from oneflow_jax.samplers import guidance
from tests import tiny


def apply(view):
    """An output that tells rows, slots and clocks apart."""
    return {"image": view.latents * view.clock[..., None], "text": view.embeds + 1}


def without(view):
    return view.replace(clock=0.5 * view.clock, embeds=view.embeds * 0)


def test_guidance_goes_from_unconditional_past_conditional():
    view = tiny.noisy_view(tiny.rows_of(tiny.captions(3)))
    out = guidance.guided(apply, 3.0, "image", without)(view)
    c, u = apply(view), apply(without(view))
    np.testing.assert_allclose(out["image"], u["image"] + 3 * (c["image"] - u["image"]), atol=1e-5)
    # Only the named output is guided.
    np.testing.assert_array_equal(out["text"], c["text"])


def test_scale_zero_is_unconditional_and_one_is_the_network_itself():
    view = tiny.noisy_view(tiny.rows_of(tiny.captions(3)))
    out = guidance.guided(apply, 0.0, "image", without)(view)
    np.testing.assert_allclose(out["image"], apply(without(view))["image"])
    assert guidance.guided(apply, 1.0, "image", without) is apply


def test_both_views_of_a_row_are_neighbors_in_one_call():
    seen = []

    def spy(view):
        seen.append(view)
        return apply(view)

    view = tiny.noisy_view(tiny.rows_of(tiny.captions(3)))
    guidance.guided(spy, 2.0, "image", without)(view)
    (both,) = seen
    expected = jnp.stack([view.clock, 0.5 * view.clock], 1).reshape(6, -1)
    np.testing.assert_array_equal(both.clock, expected)
    np.testing.assert_array_equal(both.kind, jnp.repeat(view.kind, 2, axis=0))
