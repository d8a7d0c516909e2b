"""Text ahead of images: the time of text in a document whose images have time t.

    t_text / (1 - t_text) = k t / (1 - t)    =>    t_text = k t / (1 + (k - 1) t)        (1)

The odds t / (1 - t) are the ratio of signal to noise in x_t = (1 - t) x_0 + t x_1. So the signal of
text is k times as strong as that of the images in the same document, where k is the `lead`. With
k = 1 all slots have the same time. With a large k, the text is nearly clean before the content of
the images is decided, so the network learns from every document to draw images for a text.

The text of a document is as if its embeddings were k times as long. By (1),

    (1 + (k - 1) t) x(t_text) = (1 - t) x_0 + t k x_1 = y_t                                    (2)

A sampler moves y_t, since its path from x_0 to k x_1 is straight in the time t of the document.
"""

import numpy as np

from oneflow_jax.shapes import Array, Float


def text_time(t: Float[Array | np.ndarray, "*b"], lead: float) -> Float[Array | np.ndarray, "*b"]:
    """Return the time of text by (1): 0 at t = 0, and 1 at t = 1. A lead of 1 / k inverts k."""
    return lead * t / (1 + (lead - 1) * t)


def normalize(
    y: Float[Array, "*b L n"], t: Float[Array, "*b L"], lead: float
) -> Float[Array, "*b L n"]:
    """Return the text state x at time `text_time(t, lead)` from y_t by (2)."""
    return y / (1 + (lead - 1) * t)[..., None]
