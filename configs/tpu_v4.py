"""Models of 150 million to 7.7 billion parameters on Cloud TPU v4 (32 GiB, 275 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v4.py:1B --workdir=gs://BUCKET/runs/1b

Data are all OpenMoji emoji at 64 x 64 pixels, named and interleaved: they prove the pipeline, the
sharding and the speed; models of this size want millions of documents, which users bring. With 8
rows a chip a step of the 1B takes 21.7 of each chip's 30.75 GiB, 160 TFLOP and, by the compiler's
cycles, 1.5 s: 100,000 steps on a v4-64 are 42 hours, 1,300 chip-hours. Of the 8B 25.4 GiB, 1,004
TFLOP and 5.9 s: 163 hours on v4-256, 20,800 chip-hours. The 150M on v4-8 takes 22.8 GiB.

`launch/` has the scripts that create a slice, run this on it, and delete it again; docs/tpu.md
what the compiler says of memory, FLOPs and time, and how to ask it about any other slice:

    python -m oneflow_jax.main --config=configs/tpu_v4.py:8B --mode=compile --topology=v4-256
"""

import ml_collections

from configs import tpu

PLANS = {
    "150M": {
        "batch": 128,
        "model.remat": "dots",
        "mesh.fsdp": 1,
        "topologies": ("v4-8", "v4-32"),
    },
    "1B": {
        "batch": 256,
        "model.remat": "dots",
        "mesh.fsdp": 8,
        "topologies": ("v4-64", "v4-128"),
    },
    "3B": {
        "batch": 512,
        "model.remat": "full",
        "mesh.fsdp": 16,
        "topologies": ("v4-128", "v4-256"),
    },
    "8B": {
        "batch": 512,
        "model.remat": "full",
        "mesh.fsdp": 16,
        "topologies": ("v4-256", "v4-1024"),
    },
}


def get_config(size: str = "1B") -> ml_collections.ConfigDict:
    """The configuration of one of the sizes."""
    return tpu.make_config("v4", size, PLANS)
