import jax.numpy as jnp
import numpy as np

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.flows import next_token

TEXT, IMAGE, PAD = int(Modality.TEXT), int(Modality.IMAGE), int(Modality.PAD)


def test_next_token_targets_of_two_documents():
    """Check a row of the documents <bos> a <image> . . b <end> and <bos> c <end>, with padding."""
    kind = jnp.array([TEXT, TEXT, TEXT, IMAGE, IMAGE, TEXT, TEXT, TEXT, TEXT, TEXT, PAD])
    ids = jnp.array([1, 10, 3, 0, 0, 11, 2, 1, 12, 2, 0])
    segment = jnp.array([1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 0])
    canvas = Canvas(
        ids=ids,
        latents=jnp.zeros((11, 2)),
        modality=kind,
        segment=segment,
        span=segment,
        position=jnp.zeros((11, 3), int),
        is_given=ids == 1,
        insertable=jnp.zeros(11, int),
    )
    targets, scored = next_token.next_text_targets(canvas)
    # The slot before the image and the first of its two slots have no text target.
    expected = {0: 10, 1: 3, 4: 11, 5: 2, 7: 12, 8: 2}
    np.testing.assert_array_equal(np.flatnonzero(scored), sorted(expected))
    assert {i: int(targets[i]) for i in expected} == expected
    canvas_with_given = canvas.replace(is_given=canvas.is_given | (ids == 11))
    np.testing.assert_array_equal(
        np.flatnonzero(next_token.next_text_targets(canvas_with_given)[1]), [0, 1, 5, 7, 8]
    )
    full = canvas.replace(segment=segment.at[10].set(2), modality=kind.at[10].set(TEXT))
    assert not next_token.next_text_targets(full)[1][10]
    # The last slot of a document never predicts the first token of the next document.
    loose = canvas.replace(is_given=jnp.zeros_like(canvas.is_given))
    assert not next_token.next_text_targets(loose)[1][6]
