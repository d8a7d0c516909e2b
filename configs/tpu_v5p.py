"""The models of `configs/tpu.py` on Cloud TPU v5p (95 GiB, 459 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v5p.py:8B --workdir=gs://BUCKET/runs/8b
    python -m oneflow_jax.main --config=configs/tpu_v5p.py:8B --mode=compile --topology=v5p-128

Needs no more than the slice: what each size takes on each, by the compiler, is in docs/tpu.md.
"""

import ml_collections

from configs import tpu

PLANS = {
    "150M": {
        "batch": 128,
        "model.remat": "dots",
        "mesh.fsdp": 1,
        "topologies": ("v5p-8", "v5p-16"),
    },
    "1B": {
        "batch": 512,
        "model.remat": "dots",
        "mesh.fsdp": 8,
        "topologies": ("v5p-64", "v5p-128"),
    },
    "3B": {
        "batch": 512,
        "model.remat": "dots",
        "mesh.fsdp": 16,
        "topologies": ("v5p-64", "v5p-128"),
    },
    "8B": {
        "batch": 512,
        "model.remat": "dots",
        "mesh.fsdp": 32,
        "topologies": ("v5p-128", "v5p-256"),
    },
}


def get_config(size: str = "1B") -> ml_collections.ConfigDict:
    """The configuration of one of the sizes."""
    return tpu.config_of("v5p", size, PLANS)
