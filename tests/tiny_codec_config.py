"""The smallest codec, for command line tests: `--config=tests/tiny_codec_config.py:vq`."""

from configs import codec, common


def get_config(kind="kl"):
    config = common.shrink_for_debugging(codec.get_config(kind))
    config.name = f"tiny-{kind}"
    config.steps = 4
    config.source = common.ml_collections.ConfigDict(
        {"name": "toy", "documents": 32, "pixels": 8, "interleaved": 0.5}
    )
    config.data.pixels = 8
    config.autoencoder.block_out_channels = (8,)
    config.objective.perceptual_weight = 0.0
    config.evaluation.num_samples = 6
    return config
