"""The models of `configs/tpu.py` on Cloud TPU v5e (16 GB, 197 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v5e.py:8B --workdir=gs://BUCKET/runs/8b
    python -m oneflow_jax.main --config=configs/tpu_v5e.py:8B --mode=compile --topology=v5e-256

Needs no more than the slice: what each size takes on each, by the compiler, is in docs/tpu.md.
"""

import ml_collections

from configs import tpu

PLANS = {
    "150M": {
        "batch": 64,
        "model.remat": "full",
        "mesh.fsdp": 1,
        "topologies": ("v5e-8", "v5e-16"),
    },
    "1B": {
        "batch": 512,
        "model.remat": "full",
        "mesh.fsdp": 16,
        "topologies": ("v5e-64", "v5e-128"),
    },
    "3B": {
        "batch": 512,
        "model.remat": "full",
        "mesh.fsdp": 32,
        "topologies": ("v5e-128", "v5e-256"),
    },
    "8B": {
        "batch": 1024,
        "model.remat": "full",
        "mesh.fsdp": 64,
        "topologies": ("v5e-256",),
    },
}


def get_config(size: str = "1B") -> ml_collections.ConfigDict:
    """The configuration of one of the sizes."""
    return tpu.config_of("v5e", size, PLANS)
