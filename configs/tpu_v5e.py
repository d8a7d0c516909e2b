"""The models of `configs/tpu.py` on Cloud TPU v5e (16 GB, 197 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v5e.py:8B --workdir=gs://BUCKET/runs/8b
    python -m oneflow_jax.main --config=configs/tpu_v5e.py:8B --mode=compile --topology=v5e-256

Data are those of configs/tpu_v4.py, which says what they are for. With the batch of the
configuration a step of the 1B takes 5.1 of each chip's 15.75 GiB on v5e-64, 191 TFLOP and, by the
compiler's cycles, 1.9 s: 100,000 steps are 51 hours, 3,300 chip-hours. Of the 8B on v5e-256 12.0
GiB, 502 TFLOP, 4.6 s: 127 hours, 32,500 chip-hours. How that was found, and what other sizes take:
docs/tpu.md.
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
    return tpu.make_config("v5e", size, PLANS)
