"""Shared parts of the configurations for Cloud TPUs.

Each TPU generation has a file with its own settings, for example `configs/tpu_v4.py:8B`. The models
and their data are those of configs/model_sizes.py.
"""

import ml_collections

from oneflow_jax.configs import model_sizes
from oneflow_jax.errors import UserError


def make_config(
    generation: str, argument: str, overrides_by_size: dict[str, dict]
) -> ml_collections.ConfigDict:
    """Return the configuration of one model size on one TPU generation.

    Args:
        generation: TPU generation, e.g. "v4".
        argument: one of `model_sizes.SIZES`; for your own data, followed by ",own".
        overrides_by_size: for each size, the values that this generation changes, by full key.

    Raises:
        UserError: the size is not one of `overrides_by_size`, or the data are unknown.
    """
    size, data = model_sizes.split_argument(f"configs/tpu_{generation}.py", argument)
    if size not in overrides_by_size:
        raise UserError(
            f"--config=configs/tpu_{generation}.py:{argument}: unknown size. Give one of "
            f"{', '.join(overrides_by_size)}."
        )
    config = model_sizes.make_config(f"tpu_{generation}-{size}", size, data)
    config.platform = "tpu"
    config.compilation_cache = True  # Compiling takes minutes, and a run may restart often.
    config.checkpoint.minutes = 30.0
    config.update_from_flattened_dict(overrides_by_size[size])
    config.data.num_streams = min(128, config.batch_size)
    slices = " to ".join((config.aot_topologies[0], config.aot_topologies[-1]))
    config.platform_help = (
        f"This configuration trains {model_sizes.PARAMETERS[size]} parameters on TPU {generation}, "
        f"on slices from {slices}: see launch/README.md, and docs/tpu.md for memory and time."
    )
    return config
