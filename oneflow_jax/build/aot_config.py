"""Adaptation of a configuration to the topology that its programs are compiled for."""

import logging
import math

import ml_collections

from oneflow_jax.build import values


def fit_config(
    config: ml_collections.ConfigDict, num_chips: int, num_slices: int, per_device_batch: int | None
) -> ml_collections.ConfigDict:
    """Return a copy whose mesh.slices, mesh.fsdp and batch_size fit a topology.

    Args:
        config: configuration of a run.
        num_chips: number of chips of the topology.
        num_slices: number of TPU slices or GPU nodes of the topology.
        per_device_batch: rows per chip; None leaves batch_size unchanged.

    Raises:
        UserError: a value of the configuration is outside the range of its key.
    """
    values.validate(config)
    config = ml_collections.ConfigDict(config.to_dict())
    fits = {"slices": num_slices, "fsdp": math.gcd(config.mesh.fsdp, num_chips // num_slices)}
    for axis, size in fits.items():
        if size != config.mesh[axis]:
            logging.warning(
                "mesh.%s=%d: it does not fit the topology. The programs are compiled with %d. To "
                "train on this topology, add --config.mesh.%s=%d.",
                *(axis, config.mesh[axis], size, axis, size),
            )
            config.mesh[axis] = size
    if per_device_batch:
        config.batch_size = per_device_batch * num_chips
    return config.lock()
