import numpy as np
import pytest

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import batches


@pytest.mark.parametrize(("count", "calls"), [(0, 0), (1, 1), (4, 2), (5, 3)])
def test_rows_are_evaluated_in_order(count, calls):
    sizes = []

    def network(rows):
        sizes.append(len(rows))
        return rows * 2

    rows = np.arange(2 * count, dtype="i4").reshape(count, 2)
    outputs = batches.apply_batched(network, rows, 2, 2)
    assert outputs.dtype == np.float32
    np.testing.assert_array_equal(outputs, 2 * rows)
    assert sizes == [2] * calls


def test_empty_batch():
    with pytest.raises(UserError, match="batch_size=0:"):
        batches.apply_batched(np.asarray, np.zeros((2, 2)), 0, 2)


@pytest.mark.parametrize(
    "pictures", [np.zeros((1, 8, 8, 3)), np.zeros((1, 8, 8, 1), "u1"), np.zeros((8, 8, 3), "u1")]
)
def test_invalid_images_are_rejected(pictures):
    with pytest.raises(UserError, match=r"Eye needs uint8 images \[n H W 3\], not"):
        batches.validate_images(pictures, "Eye")
