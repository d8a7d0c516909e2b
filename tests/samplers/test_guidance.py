import jax.numpy as jnp
import numpy as np

from oneflow_jax.samplers import guidance
from tests import tiny


def apply(view):
    """Return outputs that differ between rows, slots and times."""
    return {"image": view.latents * view.time[..., None], "text": view.embeds + 1}


def drop_condition(view):
    return view.replace(time=0.5 * view.time, embeds=view.embeds * 0)


def make_branch(scale, outputs=("image",), drop_condition=drop_condition):
    return guidance.GuidanceBranch(outputs, scale, drop_condition)


def test_guidance_extrapolates_beyond_the_conditional_output():
    view = tiny.noisy_canvas(tiny.training_rows(tiny.captions(3)))
    out = guidance.apply_cfg(apply, [make_branch(3.0)])(view)
    c, u = apply(view), apply(drop_condition(view))
    np.testing.assert_allclose(out["image"], u["image"] + 3 * (c["image"] - u["image"]), atol=1e-5)
    # Guidance changes only the named output.
    np.testing.assert_array_equal(out["text"], c["text"])


def test_scale_zero_is_unconditional_and_one_is_the_network_itself():
    view = tiny.noisy_canvas(tiny.training_rows(tiny.captions(3)))
    out = guidance.apply_cfg(apply, [make_branch(0.0)])(view)
    np.testing.assert_allclose(out["image"], apply(drop_condition(view))["image"])
    assert guidance.apply_cfg(apply, [make_branch(1.0), make_branch(1.0)]) is apply


def test_views_of_a_row_are_interleaved_in_one_call():
    views = []

    def spy(view):
        views.append(view)
        return apply(view)

    view = tiny.noisy_canvas(tiny.training_rows(tiny.captions(3)))
    guidance.apply_cfg(spy, [make_branch(1.0), make_branch(2.0)])(view)
    (both,) = views
    expected = jnp.stack([view.time, 0.5 * view.time], 1).reshape(6, -1)
    np.testing.assert_array_equal(both.time, expected)
    np.testing.assert_array_equal(both.modality, jnp.repeat(view.modality, 2, axis=0))


def test_each_branch_guides_only_its_outputs():
    def still(view):
        return view.replace(latents=view.latents * 0, embeds=view.embeds * 3)

    view = tiny.noisy_canvas(tiny.training_rows(tiny.captions(3)))
    out = guidance.apply_cfg(apply, [make_branch(2.0), make_branch(0.5, ("text",), still)])(view)
    c, first, second = apply(view), apply(drop_condition(view)), apply(still(view))
    np.testing.assert_allclose(
        out["image"], first["image"] + 2 * (c["image"] - first["image"]), atol=1e-5
    )
    np.testing.assert_allclose(
        out["text"], second["text"] + 0.5 * (c["text"] - second["text"]), atol=1e-5
    )
    assert guidance.nfe_factor(2.0, 0.5) == 3
    assert guidance.nfe_factor(1.0, 1.0) == 1
