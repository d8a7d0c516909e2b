"""Models of 150 million to 3 billion parameters on NVIDIA GPUs with 80 GB, on one or several.

    python -m oneflow_jax.main --config=configs/gpu.py:150M-1 --workdir=runs/150m     # one GPU
    python -m oneflow_jax.main --config=configs/gpu.py:1B-8 --workdir=runs/1b         # eight GPUs

The argument is the size of the model and the number of GPUs. The batch size depends on the model
only: with fewer GPUs, a step takes more gradient accumulation steps. The data are those of
configs/tpu_v4.py, which explains their purpose. docs/gpu.md has the memory of each size, and tells
how to fit a model to GPUs with less memory. This command compiles for a GPU without having one:

    python -m oneflow_jax.main --config=configs/gpu.py:1B-8 --mode=aot --topology=h100-8
"""

import ml_collections

from oneflow_jax.configs import model_sizes
from oneflow_jax.errors import UserError

ATTENTION = "blockwise"
"""Attention of all sizes: `xla` would store the scores of all pairs of slots in memory."""

# Columns: batch size, rows of a microbatch on each GPU, remat, whether parameters are sharded.
PLANS = {
    "150M": (128, 16, "full", False),
    "400M": (128, 16, "full", False),
    "1B": (256, 8, "full", True),
    "3B": (512, 4, "full", True),
}
"""Settings of each size for GPUs with 80 GB."""

MAX_GPUS = {size: batch // rows for size, (batch, rows, *_) in PLANS.items()}
"""Number of GPUs on which each size needs no gradient accumulation."""


def get_config(argument: str = "150M-1") -> ml_collections.ConfigDict:
    """Return the configuration of a model size on a number of GPUs, for example "1B-8".

    Raises:
        UserError: the size is unknown, or the batch does not divide among this number of GPUs.
    """
    size, _, number = argument.partition("-")
    if size not in PLANS or not (number or "8").isdecimal():
        raise UserError(
            f"--config=configs/gpu.py:{argument}: unknown. Give a size and a number of GPUs, e.g. "
            f"1B-8. The sizes are {', '.join(PLANS)}."
        )
    num_gpus = int(number or 8)
    batch_size, rows, remat, is_sharded = PLANS[size]
    if num_gpus < 1 or MAX_GPUS[size] % num_gpus:
        raise UserError(
            f"--config=configs/gpu.py:{argument}: {batch_size} rows do not divide among {num_gpus} "
            f"GPUs with {rows} rows each. Give a divisor of {MAX_GPUS[size]}."
        )
    config = model_sizes.make_config(f"gpu-{size}-{num_gpus}", size)
    config.platform = "gpu"
    config.model.attention = ATTENTION
    config.model.remat = remat
    config.batch_size = batch_size
    config.grad_accum_steps = MAX_GPUS[size] // num_gpus
    config.mesh.fsdp = min(num_gpus, 8) if is_sharded else 1
    config.data.num_streams = batch_size // 8
    config.aot_topologies = (f"h100-{min(num_gpus, 8)}",)
    config.platform_help = (
        f"This configuration trains {model_sizes.PARAMETERS[size]} parameters on {num_gpus} NVIDIA "
        'GPU(s): see docs/gpu.md. On a machine with a GPU, run pip install "jax[cuda13]".'
    )
    return config
