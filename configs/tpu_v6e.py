"""The models of `configs/tpu.py` on Cloud TPU v6e (32 GB, 918 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v6e.py:8B --workdir=gs://BUCKET/runs/8b
    python -m oneflow_jax.main --config=configs/tpu_v6e.py:8B --mode=compile --topology=v6e-256

Needs no more than the slice: what each size takes on each, by the compiler, is in docs/tpu.md.
"""

import ml_collections

from configs import tpu

PLANS = {
    "150M": {
        "batch": 128,
        "model.remat": "dots",
        "mesh.fsdp": 1,
        "topologies": ("v6e-8", "v6e-16"),
    },
    "1B": {
        "batch": 512,
        "model.remat": "dots",
        "mesh.fsdp": 16,
        "topologies": ("v6e-64", "v6e-128"),
    },
    "3B": {
        "batch": 512,
        "model.remat": "full",
        "mesh.fsdp": 32,
        "topologies": ("v6e-64", "v6e-128"),
    },
    "8B": {
        "batch": 1024,
        "model.remat": "full",
        "mesh.fsdp": 64,
        "topologies": ("v6e-128", "v6e-256"),
    },
}


def get_config(size: str = "1B") -> ml_collections.ConfigDict:
    """The configuration of one of the sizes."""
    return tpu.config_of("v6e", size, PLANS)
