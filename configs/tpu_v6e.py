"""The models of `configs/tpu.py` on Cloud TPU v6e (32 GB, 918 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v6e.py:8B --workdir=gs://BUCKET/runs/8b
    python -m oneflow_jax.main --config=configs/tpu_v6e.py:8B --mode=compile --topology=v6e-256

Data are those of configs/tpu_v4.py, which says what they are for. With the batch of the
configuration a step of the 1B takes 20.3 of each chip's 31.2 GiB on v6e-64, 160 TFLOP and, by the
compiler's cycles, 0.8 s: 100,000 steps are 21 hours, 1,400 chip-hours. Of the 8B on v6e-128 21.6
GiB, 1,004 TFLOP, 3.0 s: 82 hours, 10,500 chip-hours. How that was found, and what other sizes
take: docs/tpu.md.
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
    return tpu.make_config("v6e", size, PLANS)
