"""Models of 150 million to 7.7 billion parameters on Cloud TPU v4 (32 GiB, 275 TFLOP/s a chip).

    python -m oneflow_jax.main --config=configs/tpu_v4.py:1B --workdir=gs://BUCKET/runs/1b

The data are documents of all OpenMoji emoji at 64 x 64 pixels, with their names. These documents
only test the pipeline, the sharding and the speed: models of this size need millions of documents,
which you must provide (docs/large_data.md):

    python -m oneflow_jax.main --config=configs/tpu_v4.py:1B,own --config.source.path=FOLDER

The table has estimates per chip and step with 8 rows per chip. Times come
from the compiler's cycle counts.

    model  slice   memory used of 30.75 GiB  TFLOP  step   100,000 steps
    150M   v4-8    22.8 GiB
    1B     v4-64   21.7 GiB                  160    1.5 s  42 hours, 1,300 chip-hours
    8B     v4-256  25.4 GiB                  1,004  5.9 s  163 hours, 20,800 chip-hours

`launch/` has the scripts that create a slice, train on the slice, and delete the slice again.
docs/tpu.md explains the estimates. This command estimates memory and time for another slice:

    python -m oneflow_jax.main --config=configs/tpu_v4.py:8B --mode=aot --topology=v4-256
"""

import ml_collections

from oneflow_jax.configs import tpu

PLANS = {
    "150M": {
        "batch_size": 128,
        "model.remat": "dots",
        "mesh.fsdp": 1,
        "aot_topologies": ("v4-8", "v4-32"),
    },
    "1B": {
        "batch_size": 256,
        "model.remat": "dots",
        "mesh.fsdp": 8,
        "aot_topologies": ("v4-64", "v4-128"),
    },
    "3B": {
        "batch_size": 512,
        "model.remat": "full",
        "mesh.fsdp": 16,
        "aot_topologies": ("v4-128", "v4-256"),
    },
    "8B": {
        "batch_size": 512,
        "model.remat": "full",
        "mesh.fsdp": 16,
        "aot_topologies": ("v4-256", "v4-1024"),
    },
}


def get_config(argument: str = "1B") -> ml_collections.ConfigDict:
    """Return the configuration of a size, e.g. "1B"; "1B,own" is for your own data."""
    return tpu.make_config("v4", argument, PLANS)
