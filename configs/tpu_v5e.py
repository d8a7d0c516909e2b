"""The models of `configs/tpu.py` on Cloud TPU v5e (16 GB, 197 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v5e.py:8B --workdir=gs://BUCKET/runs/8b
    python -m oneflow_jax.main --config=configs/tpu_v5e.py:8B --mode=aot --topology=v5e-256

The data are those of configs/tpu_v4.py, which explains their purpose; 8B,own trains on your own
data. The table has estimates per chip and step for the configured batch size. Times come from the
compiler's cycle counts.

    model  slice    memory used of 15.75 GiB  TFLOP  step   100,000 steps
    1B     v5e-64   5.1 GiB                   191    1.9 s  51 hours, 3,300 chip-hours
    8B     v5e-256  12.0 GiB                  502    4.6 s  127 hours, 32,500 chip-hours

docs/tpu.md explains the method, and has estimates for other sizes.
"""

import ml_collections

from oneflow_jax.configs import tpu

PLANS = {
    "150M": {
        "batch_size": 64,
        "model.remat": "full",
        "mesh.fsdp": 1,
        "aot_topologies": ("v5e-8", "v5e-16"),
    },
    "1B": {
        "batch_size": 512,
        "model.remat": "full",
        "mesh.fsdp": 16,
        "aot_topologies": ("v5e-64", "v5e-128"),
    },
    "3B": {
        "batch_size": 512,
        "model.remat": "full",
        "mesh.fsdp": 32,
        "aot_topologies": ("v5e-128", "v5e-256"),
    },
    "8B": {
        "batch_size": 1024,
        "model.remat": "full",
        "mesh.fsdp": 64,
        "aot_topologies": ("v5e-256",),
    },
}


def get_config(argument: str = "1B") -> ml_collections.ConfigDict:
    """Return the configuration of a size, e.g. "1B"; "1B,own" is for your own data."""
    return tpu.make_config("v5e", argument, PLANS)
