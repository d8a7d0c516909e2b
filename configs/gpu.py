"""Models of 150 million to 3 billion parameters on NVIDIA GPUs with 80 GB, on one or several.

    python -m oneflow_jax.main --config=configs/gpu.py:150M-1 --workdir=runs/150m     # one GPU
    python -m oneflow_jax.main --config=configs/gpu.py:1B-8 --workdir=runs/1b         # eight GPUs

The argument is the size of the model and the number of GPUs. The batch size depends on the model
only: with fewer GPUs, a step takes more gradient accumulation steps. The data are those of
configs/tpu_v4.py, which explains their purpose; 1B-8,own trains on your own data. docs/gpu.md has
the memory of each size, and tells how to fit a model to GPUs with less memory. This command
compiles for a GPU without having one:

    python -m oneflow_jax.main --config=configs/gpu.py:1B-8 --mode=aot --topology=h100-8
"""

import ml_collections

from oneflow_jax.configs import model_sizes
from oneflow_jax.errors import UserError

# Columns: batch size, maximum rows of a microbatch on each GPU, remat, minimum number of GPUs.
PLANS = {
    "150M": (128, 64, "full", 1),
    "400M": (128, 64, "full", 1),
    "1B": (256, 32, "full", 1),
    "3B": (512, 16, "full", 4),
}
"""Settings of each size for GPUs with 80 GB."""

SHARDED = ("1B", "3B")
"""Sizes whose parameters are sharded over the GPUs of a node; the others are replicated."""


def get_config(argument: str = "150M-1") -> ml_collections.ConfigDict:
    """Return the configuration of a model size on a number of GPUs, e.g. "1B-8" or "1B-8,own".

    Raises:
        UserError: the size or the data are unknown, or the number of GPUs does not fit the size.
    """
    model, data = model_sizes.split_argument("configs/gpu.py", argument)
    size, _, number = model.partition("-")
    if size not in PLANS or not number.isdecimal():
        raise UserError(
            f"--config=configs/gpu.py:{argument}: unknown. Give a size and a number of GPUs, e.g. "
            f"1B-8. The sizes are {', '.join(PLANS)}."
        )
    num_gpus = int(number)
    batch_size, max_rows, remat, min_gpus = PLANS[size]
    if num_gpus < min_gpus or batch_size % num_gpus:
        raise UserError(
            f"--config=configs/gpu.py:{argument}: {size} needs at least {min_gpus} GPU(s), and a "
            f"number that divides its batch of {batch_size} rows."
        )
    config = model_sizes.make_config(f"gpu-{size}-{num_gpus}", size, data)
    config.platform = "gpu"
    config.compilation_cache = True  # Compiling takes minutes, and a run may restart often.
    config.checkpoint.minutes = 30.0
    config.model.remat = remat
    config.batch_size = batch_size
    config.grad_accum_steps = max(1, batch_size // num_gpus // max_rows)
    config.mesh.fsdp = min(num_gpus, 8) if size in SHARDED else 1
    config.data.num_streams = min(64, batch_size // 2)
    config.aot_topologies = (f"h100-{min(num_gpus, 8)}",)
    config.platform_help = (
        f"This configuration trains {model_sizes.PARAMETERS[size]} parameters on {num_gpus} NVIDIA "
        "GPU(s): see docs/gpu.md. On a machine with a GPU, run pip install -r requirements-gpu.txt."
    )
    return config
