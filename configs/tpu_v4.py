"""A model of 1.26 billion parameters on a Cloud TPU v4 pod slice.

    python -m oneflow_jax.main --config=configs/tpu_v4.py --workdir=gs://BUCKET/runs/1b

For v4-64 (32 chips) and up: parameters and optimizer are spread over 8 chips (fsdp), the rest of
the slice takes more rows. The global batch is 512 rows of 2,048 slots, 1.05 million slots a step.
Data are all OpenMoji emoji at 64 x 64 pixels, named and interleaved: they prove the pipeline, the
sharding and the speed; a model of this size wants millions of documents, which users bring.
`launch/` has the scripts that create a slice, run this on it, and delete it again.
"""

import ml_collections

from configs import common
from oneflow_jax.data import emoji_concepts


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = common.base("tpu_v4")
    config.platform = "tpu"
    config.needs = (
        "It trains 1.26 billion parameters on a v4 pod slice of 8 chips or more: see "
        "launch/README.md."
    )
    config.steps = 100_000
    config.batch = 512

    config.codec.pixels = 64
    config.codec.patch = 4
    config.codec.mean = 0.6
    config.codec.deviation = 0.6
    config.source = ml_collections.ConfigDict()
    config.source.name = "emoji"
    config.source.concepts = None
    config.source.categories = emoji_concepts.CATEGORIES
    config.source.pixels = config.codec.get_ref("pixels")
    config.source.documents = 200_000
    config.source.held_out_documents = 5_000
    config.source.interleaved = 0.5
    config.data.length = 2_048
    config.data.text_slots = 16
    config.data.vocab = 8_192
    config.data.workers = 16
    config.data.cache = 0

    config.model = common.size(layers=24, width=2_048, heads=16, kv_heads=16, hidden=5_632)
    config.model.embed_width = 512
    config.model.remat = "dots"
    config.model.unroll = 1
    config.model.dtype = "bfloat16"
    config.model.attention = "splash"

    config.paradigm.floor = 0.1
    config.paradigm.clock = ("logit_normal", -0.5, 1.0)

    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup = 2_000
    config.optimizer.weight_decay = 0.1
    config.optimizer.b2 = 0.95
    config.optimizer.ema = 0.9999

    config.mesh.data = -1
    config.mesh.fsdp = 8

    config.logging.every = 100
    config.checkpoint.every = 2_000
    config.checkpoint.keep = 3
    config.evaluation.every = 2_000
    config.evaluation.score = "emoji"
    config.evaluation.samples = 512
    config.evaluation.batch = 128
    config.sampling.prompts = ("<text> <image>", "a picture of a tiger: <image>")
    return config
