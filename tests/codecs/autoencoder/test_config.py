import json

import pytest
from etils import epath

from oneflow_jax.codecs.autoencoder import config
from oneflow_jax.errors import UserError
from tests.codecs.autoencoder import small_models

SD1 = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}


@pytest.fixture
def path(tmp_path):
    return epath.Path(tmp_path) / "config.json"


def error_message(path, text):
    path.write_text(text)
    with pytest.raises(UserError) as error:
        config.read(path.parent)
    assert str(path) in str(error.value)
    return str(error.value)


def test_an_old_file_has_the_defaults_of_later_fields(path):
    path.write_text(json.dumps(SD1))
    architecture = config.read(path.parent)
    assert architecture.block_out_channels == (128, 256, 512, 512)
    assert (architecture.scaling_factor, architecture.shift_factor) == (0.18215, None)
    assert architecture.use_quant_conv
    assert architecture.mid_block_add_attention
    assert (architecture.downscale_factor, architecture.channels) == (8, 4)


def test_a_later_file_has_its_own(path):
    settings = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False,
                "scaling_factor": 0.3611, "shift_factor": 0.1159, "latents_mean": None}  # fmt: skip
    path.write_text(json.dumps(SD1 | settings))
    architecture = config.read(path.parent)
    assert (architecture.scaling_factor, architecture.shift_factor) == (0.3611, 0.1159)
    assert not architecture.use_quant_conv
    assert architecture.channels == 16


@pytest.mark.parametrize("shape", [small_models.KL, small_models.VQ], ids=["kl", "vq"])
def test_what_is_written_is_read(path, shape):
    path.write_text(shape.to_json())
    assert config.read(path.parent) == shape


def test_vectors_of_codes_are_as_wide_as_latents_unless_told():
    assert small_models.VQ.channels == 2
    shape = config.Architecture(kind="VQModel", block_out_channels=(32,), latent_channels=7)
    assert shape.channels == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spatial_compression": 3}, "spatial_compression=3 is unknown"),
        ({"act_fn": "relu"}, "act_fn='relu' is not supported"),
        ({"norm_type": "spatial"}, "norm_type='spatial' is not supported"),
        ({"latents_mean": [0.1]}, "latents_mean=[0.1] is not supported"),
        ({"_class_name": "AutoencoderTiny"}, "_class_name='AutoencoderTiny': "),
        ({"down_block_types": ["AttnDownEncoderBlock2D"]}, "only DownEncoderBlock2D"),
        ({"norm_num_groups": 48}, "block_out_channels=(128, 256, 512, 512): give multiples"),
        ({"block_out_channels": []}, "block_out_channels=(): give multiples"),
    ],
    ids=str,
)
def test_what_is_not_built_is_refused(path, change, message):
    assert message in error_message(path, json.dumps(SD1 | change))


def test_other_files_are_refused(path):
    assert "is not JSON" in error_message(path, "{")
    assert "does not hold a JSON object" in error_message(path, "[1]")
    path.unlink()
    with pytest.raises(UserError, match="the file does not exist"):
        config.read(path.parent)
