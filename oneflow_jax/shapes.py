"""The letters that stand for axes in array annotations, and the array types of jaxtyping.

| letter | size of                              | letter | size of                        |
|--------|--------------------------------------|--------|--------------------------------|
| B      | rows of a batch                      | K      | key and value heads            |
| L      | slots of a row                       | H      | query heads                    |
| D      | width of the transformer             | A      | width of one head              |
| E      | width of a token embedding           | F      | hidden width of the MLP        |
| C      | numbers in one image latent (patch)  | N      | layers, or patches of an image |
| V      | vocabulary                           | T      | frames of a trajectory         |

A leading `*b` stands for any number of batch axes. Time runs from t=0, corrupted, to t=1, clean. In
a boolean mask, True marks the elements that are used.
"""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, Key, UInt8

PyTree = Any
Sums = dict[str, Float[Array, ""]]
"""Sums or counts over slots, by the name of the loss term."""
Outputs = dict[str, Float[Array, "*b L n"]]
"""Outputs of the network for every slot, by the name of the head."""

__all__ = ["Array", "Bool", "Float", "Int", "Key", "Outputs", "PyTree", "Sums", "UInt8"]
