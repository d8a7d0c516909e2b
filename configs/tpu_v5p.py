"""The models of `configs/tpu.py` on Cloud TPU v5p (95 GiB, 459 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v5p.py:8B --workdir=gs://BUCKET/runs/8b
    python -m oneflow_jax.main --config=configs/tpu_v5p.py:8B --mode=aot --topology=v5p-128

The data are those of configs/tpu_v4.py, which explains their purpose; 8B,own trains on your own
data. The table has estimates per chip and step for the configured batch size. Times come from the
compiler's cycle counts.

    model  slice    memory used of 95.7 GiB  TFLOP  step   100,000 steps
    1B     v5p-64   39.8 GiB                 319    1.7 s  47 hours, 1,500 chip-hours
    8B     v5p-128  60.0 GiB                 837    3.5 s  96 hours, 6,200 chip-hours

docs/tpu.md explains the method, and has estimates for other sizes.
"""

import ml_collections

from oneflow_jax.configs import tpu

PLANS = {
    "150M": {
        "batch_size": 128,
        "model.remat": "dots",
        "mesh.fsdp": 1,
        "aot_topologies": ("v5p-8", "v5p-16"),
    },
    "1B": {
        "batch_size": 512,
        "model.remat": "dots",
        "mesh.fsdp": 8,
        "aot_topologies": ("v5p-64", "v5p-128"),
    },
    "3B": {
        "batch_size": 512,
        "model.remat": "dots",
        "mesh.fsdp": 16,
        "aot_topologies": ("v5p-64", "v5p-128"),
    },
    "8B": {
        "batch_size": 512,
        "model.remat": "dots",
        "mesh.fsdp": 32,
        "aot_topologies": ("v5p-128", "v5p-256"),
    },
}


def get_config(argument: str = "1B") -> ml_collections.ConfigDict:
    """Return the configuration of a size, e.g. "1B"; "1B,own" is for your own data."""
    return tpu.make_config("v5p", argument, PLANS)
