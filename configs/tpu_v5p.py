"""The models of `configs/tpu.py` on Cloud TPU v5p (95 GiB, 459 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v5p.py:8B --workdir=gs://BUCKET/runs/8b
    python -m oneflow_jax.main --config=configs/tpu_v5p.py:8B --mode=compile --topology=v5p-128

Data are those of configs/tpu_v4.py, which says what they are for. With the batch of the
configuration a step of the 1B takes 39.8 of each chip's 95.7 GiB on v5p-64, 319 TFLOP and, by the
compiler's cycles, 1.7 s: 100,000 steps are 47 hours, 1,500 chip-hours. Of the 8B on v5p-128 60.0
GiB, 837 TFLOP, 3.5 s: 96 hours, 6,200 chip-hours. How that was found, and what other sizes take:
docs/tpu.md.
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
    return tpu.make_config("v5p", size, PLANS)
