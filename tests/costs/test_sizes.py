"""Networks are what their docstrings say."""

import pytest

from configs import tpu_v4
from oneflow_jax.costs import sizes


def test_one_billion_is_that_of_the_pod_slice():
    config = tpu_v4.get_config()
    for name in ("layers", "width", "heads", "kv_heads", "head_width", "hidden", "embed_width"):
        assert getattr(sizes.ONE_BILLION, name) == config.model[name], name
    assert sizes.ONE_BILLION.vocab == config.data.vocab
    assert sizes.ONE_BILLION.channels == config.codec.colors * config.codec.patch**2


@pytest.mark.parametrize(
    ("network", "parameters"),
    [(sizes.ONE_BILLION, 1_260_184_112), (sizes.EIGHT_BILLION, 7_658_957_120)],
)
def test_parameters(network, parameters):
    assert network.parameters == parameters
    assert network.outputs == network.vocab + network.channels
