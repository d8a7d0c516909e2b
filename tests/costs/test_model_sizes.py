"""Tests that the networks' sizes match their docstrings and configurations."""

import dataclasses

import jax
import pytest

from configs import tpu_v4
from oneflow_jax.build import system
from oneflow_jax.costs import flops, model_sizes


@pytest.mark.parametrize("name", model_sizes.NETWORKS)
def test_network_sizes_equal_the_configurations(name):
    """Compare with the models of configs/, except the patch size, which depends on the codec."""
    config = tpu_v4.get_config(name)
    config.mesh.fsdp = 1
    model = system.abstract_system(config.lock(), jax.devices()).model
    channels = config.codec.image_channels * config.codec.patch_size**2
    plain = model_sizes.NETWORKS[name]
    outputs = plain.outputs - plain.channels + channels
    expected = dataclasses.replace(plain, channels=channels, outputs=outputs)
    assert flops.from_model(model, channels) == expected


@pytest.mark.parametrize(
    ("network", "parameters"),
    [(model_sizes.ONE_BILLION, 1_260_184_112), (model_sizes.EIGHT_BILLION, 7_658_957_120)],
)
def test_parameter_counts_equal_the_docstrings(network, parameters):
    assert network.num_parameters == parameters
    assert network.outputs == network.vocab + network.channels
