import jax.numpy as jnp
import numpy as np

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.flows import next_token

TEXT, IMAGE, PAD = int(Modality.TEXT), int(Modality.IMAGE), int(Modality.PAD)


def test_next_words():
    """Two documents: <bos> a <image> . . b <end>, and <bos> c <end>; then nothing."""
    kind = jnp.array([TEXT, TEXT, TEXT, IMAGE, IMAGE, TEXT, TEXT, TEXT, TEXT, TEXT, PAD])
    ids = jnp.array([1, 10, 3, 0, 0, 11, 2, 1, 12, 2, 0])
    segment = jnp.array([1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 0])
    canvas = Canvas(
        ids=ids,
        latents=jnp.zeros((11, 2)),
        kind=kind,
        segment=segment,
        span=segment,
        position=jnp.zeros((11, 3), int),
        fixed=ids == 1,
        opening=jnp.zeros(11, int),
    )
    told, scored = next_token.next_text_targets(canvas)
    # The slot before a picture and the first of the picture's two have no word to tell.
    expected = {0: 10, 1: 3, 4: 11, 5: 2, 7: 12, 8: 2}
    np.testing.assert_array_equal(np.flatnonzero(scored), sorted(expected))
    assert {i: int(told[i]) for i in expected} == expected
    given = canvas.replace(fixed=canvas.fixed | (ids == 11))
    np.testing.assert_array_equal(
        np.flatnonzero(next_token.next_text_targets(given)[1]), [0, 1, 5, 7, 8]
    )
    full = canvas.replace(segment=segment.at[10].set(2), kind=kind.at[10].set(TEXT))
    assert not next_token.next_text_targets(full)[1][10]
    # Nothing tells the first word of another document, fixed or not.
    loose = canvas.replace(fixed=jnp.zeros_like(canvas.fixed))
    assert not next_token.next_text_targets(loose)[1][6]
