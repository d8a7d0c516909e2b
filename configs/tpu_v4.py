"""Models of 150 million to 7.7 billion parameters on Cloud TPU v4 (32 GiB, 275 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v4.py:1B --workdir=gs://BUCKET/runs/1b

Data are all OpenMoji emoji at 64 x 64 pixels, named and interleaved: they prove the pipeline, the
sharding and the speed; models of this size want millions of documents, which users bring.
With 8 rows a chip a step of the 1B takes 21.7 GiB of each chip and 160 TFLOP, about 1.4 s by the
compiler's cycles; of the 8B 25.4 GiB, 1,004 TFLOP and 5.4 s. What that costs: launch/README.md.

`launch/` has the scripts that create a slice, run this on it, and delete it again; docs/tpu.md what
the compiler says of memory, FLOPs and time, and how to ask it about any other slice:

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
    return tpu.config_of("v4", size, PLANS)
