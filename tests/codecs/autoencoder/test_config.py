import json
import math

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


def test_old_file_gets_defaults_for_later_fields(path):
    path.write_text(json.dumps(SD1))
    architecture = config.read(path.parent)
    assert architecture.block_out_channels == (128, 256, 512, 512)
    assert (architecture.scaling_factor, architecture.shift_factor) == (0.18215, None)
    assert architecture.use_quant_conv
    assert architecture.mid_block_add_attention
    assert (architecture.downscale_factor, architecture.channels) == (8, 4)


def test_later_file_keeps_its_values(path):
    settings = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False,
                "scaling_factor": 0.3611, "shift_factor": 0.1159, "latents_mean": None}  # fmt: skip
    path.write_text(json.dumps(SD1 | settings))
    architecture = config.read(path.parent)
    assert (architecture.scaling_factor, architecture.shift_factor) == (0.3611, 0.1159)
    assert not architecture.use_quant_conv
    assert architecture.channels == 16


@pytest.mark.parametrize("shape", [small_models.KL, small_models.VQ], ids=["kl", "vq"])
def test_written_configuration_is_read_back(path, shape):
    path.write_text(shape.to_json())
    assert config.read(path.parent) == shape


def test_code_width_defaults_to_latent_channels():
    assert small_models.VQ.channels == 2
    shape = config.Architecture(kind="VQModel", block_out_channels=(32,), latent_channels=7)
    assert shape.channels == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spatial_compression": 3}, "spatial_compression=3 is unknown"),
        ({"act_fn": "relu"}, "act_fn='relu' is not supported"),
        ({"norm_type": "spatial"}, "norm_type='spatial' is not supported"),
        ({"_class_name": "AutoencoderTiny"}, "_class_name='AutoencoderTiny': "),
        ({"down_block_types": ["AttnDownEncoderBlock2D"]}, "only DownEncoderBlock2D"),
        ({"norm_num_groups": 48}, "block_out_channels=(128, 256, 512, 512): give multiples"),
        ({"block_out_channels": []}, "block_out_channels=(): give multiples"),
    ],
    ids=str,
)
def test_unsupported_features_are_refused(path, change, message):
    assert message in error_message(path, json.dumps(SD1 | change))


def test_other_files_are_refused(path):
    assert "is not JSON" in error_message(path, "{")
    assert "does not hold a JSON object" in error_message(path, "[1]")
    path.unlink()
    with pytest.raises(UserError, match="the file does not exist"):
        config.read(path.parent)


MALFORMED = [
    ({"block_out_channels": 128}, "block_out_channels=128"),
    ({"block_out_channels": "128"}, "block_out_channels='128'"),
    ({"block_out_channels": [128, "256", 512, 512]}, "block_out_channels[1]='256'"),
    ({"block_out_channels": [128, -256, 512, 512]}, "block_out_channels[1]=-256"),
    ({"block_out_channels": [128, 2.5, 512, 512]}, "block_out_channels[1]=2.5"),
    ({"block_out_channels": [128, 2**40, 512, 512]}, "block_out_channels[1]=1099511627776"),
    ({"block_out_channels": [128, 256]}, "down_block_types"),
    ({"down_block_types": ["DownEncoderBlock2D"] * 3}, "down_block_types"),
    ({"up_block_types": ["UpDecoderBlock2D"] * 5}, "up_block_types"),
    ({"up_block_types": ["DownEncoderBlock2D"] * 4}, "up_block_types"),
    ({"down_block_types": 4}, "down_block_types=4"),
    ({"down_block_types": [["DownEncoderBlock2D"]] * 4}, "down_block_types"),
    ({"norm_num_groups": 0}, "norm_num_groups=0"),
    ({"norm_num_groups": "32"}, "norm_num_groups='32'"),
    ({"layers_per_block": -1}, "layers_per_block=-1"),
    ({"layers_per_block": 10**9}, "layers_per_block=1000000000"),
    ({"layers_per_block": 1.5}, "layers_per_block=1.5"),
    ({"layers_per_block": True}, "layers_per_block=True"),
    ({"latent_channels": 0}, "latent_channels=0"),
    ({"latent_channels": "four"}, "latent_channels='four'"),
    ({"in_channels": [3]}, "in_channels=[3]"),
    ({"out_channels": -3}, "out_channels=-3"),
    ({"mid_block_add_attention": "false"}, "mid_block_add_attention='false'"),
    ({"use_quant_conv": 0}, "use_quant_conv=0"),
    ({"scaling_factor": 0}, "scaling_factor=0"),
    ({"scaling_factor": math.nan}, "scaling_factor=nan"),
    ({"scaling_factor": "0.18"}, "scaling_factor='0.18'"),
    ({"shift_factor": math.inf}, "shift_factor=inf"),
    ({"shift_factor": {}}, "shift_factor={}"),
    ({"num_vq_embeddings": 0}, "num_vq_embeddings=0"),
    ({"num_vq_embeddings": 2**25}, "num_vq_embeddings=33554432"),
    ({"vq_embed_dim": -2}, "vq_embed_dim=-2"),
    ({"_class_name": None}, "_class_name=None"),
    ({"_class_name": ["VQModel"]}, "_class_name=['VQModel']"),
    ({"_class_name": "AutoencoderKLWan"}, "_class_name='AutoencoderKLWan'"),
    ({"act_fn": ["silu"]}, "act_fn=['silu']"),
    ({"latents_mean": [0.1] * 4}, "latents_std"),
    ({"latents_std": [0.1] * 4}, "latents_mean"),
    ({"latents_mean": [0.1] * 3, "latents_std": [1] * 4}, "latents_mean"),
    ({"latents_mean": [0.1] * 4, "latents_std": [1, 1, 0, 1]}, "latents_std[2]=0"),
    ({"latents_mean": [0.1] * 4, "latents_std": [1, 1, 1, math.inf]}, "latents_std[3]=inf"),
    ({"latents_mean": [0.1] * 4, "latents_std": [1, -1, 1, 1]}, "latents_std[1]=-1"),
    ({"latents_mean": [0, math.nan, 0, 0], "latents_std": [1] * 4}, "latents_mean[1]=nan"),
    ({"latents_mean": 0.5, "latents_std": [1] * 4}, "latents_mean=0.5"),
    ({"latents_mean": ["a"] * 4, "latents_std": [1] * 4}, "latents_mean[0]='a'"),
]


@pytest.mark.parametrize(("change", "message"), MALFORMED, ids=str)
def test_malformed_values_are_named(path, change, message):
    assert message in error_message(path, json.dumps(SD1 | change))


@pytest.mark.parametrize(
    "text", ["", "null", "[" * 100_000, "1" * 10_000, '"AutoencoderKL"', "\x00"], ids=range(6)
)
def test_text_that_is_not_a_json_object(path, text):
    assert "JSON" in error_message(path, text)


def test_folder_in_place_of_the_file(path):
    path.mkdir()
    with pytest.raises(UserError, match=r"config\.json: the file does not exist"):
        config.read(path.parent)


def test_vq_model_rejects_latent_statistics(path):
    statistics = {"latents_mean": [0.1] * 3, "latents_std": [1.0] * 3}
    text = json.dumps(json.loads(small_models.VQ.to_json()) | statistics)
    assert "latents_mean" in error_message(path, text)


def test_statistics_of_latents_are_read_and_written(path):
    statistics = {"latents_mean": [0.5, -1, 2, 0], "latents_std": [1.5, 2, 0.5, 1]}
    path.write_text(json.dumps(SD1 | statistics | {"scaling_factor": 0.5}))
    architecture = config.read(path.parent)
    assert architecture.latents_mean == (0.5, -1, 2, 0)
    assert architecture.latents_std == (1.5, 2, 0.5, 1)
    path.write_text(architecture.to_json())
    assert config.read(path.parent) == architecture
    # Files without statistics are written without these keys.
    assert "latents_mean" not in small_models.KL.to_json()
