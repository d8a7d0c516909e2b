"""Networks are what their docstrings say, and what is configured."""

import dataclasses

import jax
import pytest

from configs import tpu_v4
from oneflow_jax.build import system
from oneflow_jax.costs import flops, sizes


@pytest.mark.parametrize("name", sizes.NETWORKS)
def test_sizes_are_those_that_are_trained(name):
    """But for patches, which are those of the codec: here of pixels, in `sizes` also of latents."""
    config = tpu_v4.get_config(name)
    config.mesh.fsdp = 1
    model = system.abstract_system(config.lock(), jax.devices()).model
    channels = config.codec.colors * config.codec.patch**2
    plain = sizes.NETWORKS[name]
    outputs = plain.outputs - plain.channels + channels
    expected = dataclasses.replace(plain, channels=channels, outputs=outputs)
    assert flops.from_model(model, channels) == expected


@pytest.mark.parametrize(
    ("network", "parameters"),
    [(sizes.ONE_BILLION, 1_260_184_112), (sizes.EIGHT_BILLION, 7_658_957_120)],
)
def test_parameters(network, parameters):
    assert network.parameters == parameters
    assert network.outputs == network.vocab + network.channels
