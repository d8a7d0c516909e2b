"""The models of `configs/tpu.py` on Cloud TPU v6e (32 GB, 918 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v6e.py:8B --workdir=gs://BUCKET/runs/8b
    python -m oneflow_jax.main --config=configs/tpu_v6e.py:8B --mode=aot --topology=v6e-256

The data are those of configs/tpu_v4.py, which explains their purpose; 8B,own trains on your own
data. The table has estimates per chip and step for the configured batch size. Times come from the
compiler's cycle counts.

    model  slice    memory used of 31.2 GiB  TFLOP  step   100,000 steps
    1B     v6e-64   20.3 GiB                 160    0.8 s  21 hours, 1,400 chip-hours
    8B     v6e-128  21.6 GiB                 1,004  3.0 s  82 hours, 10,500 chip-hours

docs/tpu.md explains the method, and has estimates for other sizes.
"""

import ml_collections

from oneflow_jax.configs import tpu

PLANS = {
    "150M": {
        "batch_size": 128,
        "model.remat": "dots",
        "mesh.fsdp": 1,
        "aot_topologies": ("v6e-8", "v6e-16"),
    },
    "1B": {
        "batch_size": 512,
        "model.remat": "dots",
        "mesh.fsdp": 16,
        "aot_topologies": ("v6e-64", "v6e-128"),
    },
    "3B": {
        "batch_size": 512,
        "model.remat": "full",
        "mesh.fsdp": 32,
        "aot_topologies": ("v6e-64", "v6e-128"),
    },
    "8B": {
        "batch_size": 1024,
        "model.remat": "full",
        "mesh.fsdp": 64,
        "aot_topologies": ("v6e-128", "v6e-256"),
    },
}


def get_config(argument: str = "1B") -> ml_collections.ConfigDict:
    """Return the configuration of a size, e.g. "1B"; "1B,own" is for your own data."""
    return tpu.make_config("v6e", argument, PLANS)
