"""Configuration of a CLIP model, read from Hugging Face's `config.json`."""

import dataclasses
import json
from typing import Any

from etils import epath

from oneflow_jax.errors import UserError, check_one_of

CONFIG_FILE = "config.json"

ACTIVATIONS = ("quick_gelu", "gelu")

PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""Files with the settings of image preprocessing. The second file has them under the key
"image_processor"."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Default mean and std of RGB values from 0 to 1, computed by OpenAI from training images."""

LEGACY_EOS = 2
"""A wrong `eos_token_id` in the configurations of OpenAI's converted models.

In a model with this value, the end token is the token with the highest id.
"""

_BICUBIC = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Configuration of one of the two transformers; the fields are named as in transformers.

    Attributes:
        hidden_size: width.
        intermediate_size: width of the MLP's hidden layer.
        num_hidden_layers: number of layers.
        num_attention_heads: number of heads; divides the width.
        hidden_act: activation function, one of `ACTIVATIONS`.
        layer_norm_eps: constant that layer normalization adds to the variance.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int = 12
    num_attention_heads: int
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(TowerConfig):
    """Configuration of the text transformer; the defaults are those of transformers.

    Attributes:
        vocab_size: number of tokens in the vocabulary.
        max_position_embeddings: maximum caption length in tokens, including start and end tokens.
        eos_token_id: id of the end token, or `LEGACY_EOS`. The output at the end token is the
            embedding of the caption.
    """

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(TowerConfig):
    """Configuration of the vision transformer; the defaults are those of transformers.

    Attributes:
        image_size: height and width of an image, in pixels.
        patch_size: height and width of a patch, in pixels.
        num_channels: number of color channels, 3.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Configuration of a CLIP model.

    Attributes:
        text, vision: configurations of the two transformers.
        projection_dim: dimension of the shared embedding space.
        mean, std: mean and std of each channel, which normalize images with values from 0 to 1.
    """

    text: TextConfig
    vision: VisionConfig
    projection_dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read(folder: epath.Path) -> ClipConfig:
    """Read the configuration of the model in a folder.

    Raises:
        UserError: `config.json` does not exist, is not JSON, or describes an unsupported model.
            The message names the file, the key and its value.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        raise UserError(
            f"{path}: the file does not exist. Give the folder of a CLIP model in Hugging Face's "
            f"layout, with {CONFIG_FILE}, model.safetensors and tokenizer.json."
        )
    values = _read_json(path)
    if values.get("model_type") != "clip":
        raise UserError(
            f"{path}: model_type={values.get('model_type')!r}: only 'clip' is supported."
        )
    vision = _parse_tower(path, values, "vision_config", VisionConfig)
    mean, deviation = _image_normalization(folder, vision.image_size)
    return ClipConfig(
        text=_parse_tower(path, values, "text_config", TextConfig),
        vision=vision,
        projection_dim=_positive_value(
            path, "projection_dim", values.get("projection_dim", 512), int
        ),
        mean=mean,
        std=deviation,
    )


def _parse_tower(path: epath.Path, values: dict, key: str, kind: type[TowerConfig]) -> Any:  # noqa: ANN401 - a `kind`
    """Parse the section of `config.json` that describes one transformer."""
    # Some of OpenAI's configurations have a second copy of the section, which takes precedence.
    second = values.get(f"{key}_dict")
    section = values.get(key, {}) if second is None else second
    if not isinstance(section, dict):
        raise UserError(f"{path}: {key} must be a JSON object, not {section!r}.")
    tower = kind(**{
        field.name: _positive_value(path, f"{key}.{field.name}", section[field.name], field.type)
        for field in dataclasses.fields(kind)
        if field.name in section
    })  # fmt: skip
    if tower.hidden_size % tower.num_attention_heads:
        raise UserError(
            f"{path}: {key}.hidden_size={tower.hidden_size} is not a multiple of "
            f"num_attention_heads={tower.num_attention_heads}."
        )
    check_one_of(f"{path}: {key}.hidden_act", tower.hidden_act, ACTIVATIONS)
    if kind is VisionConfig and (tower.num_channels != 3 or tower.patch_size > tower.image_size):
        raise UserError(
            f"{path}: {key} has num_channels={tower.num_channels}, patch_size={tower.patch_size}, "
            f"image_size={tower.image_size}: images must be RGB and not smaller than a patch."
        )
    return tower


def _positive_value(path: epath.Path, key: str, value: object, kind: type) -> Any:  # noqa: ANN401 - a `kind`
    """Check the type of a value and that a number is positive, and return the value."""
    if type(value) is not kind or (kind is not str and not value > 0):
        raise UserError(
            f"{path}: {key}={value!r}: must be of type {kind.__name__}; a number must be above 0."
        )
    return value


def _image_normalization(
    folder: epath.Path, image_size: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Read the mean and std of the channels, and reject preprocessing that differs from CLIP's."""
    here = [folder / name for name in PREPROCESSOR_FILES if (folder / name).exists()]
    if not here:
        return MEAN, STD
    path = here[0]
    values = _read_json(path)
    values = values.get("image_processor", values)
    only = {
        "do_resize": (True,),
        "do_center_crop": (True,),
        "do_rescale": (True,),
        "do_normalize": (True,),
        "resample": (_BICUBIC,),
        "size": (image_size, {"shortest_edge": image_size}),
        "crop_size": (image_size, {"height": image_size, "width": image_size}),
    }
    for key, allowed in only.items():
        if key in values and values[key] not in allowed:
            raise UserError(f"{path}: {key}={values[key]!r}: only {allowed[-1]!r} is supported.")
    mean = _rgb(path, "image_mean", values.get("image_mean", MEAN))
    return mean, _rgb(path, "image_std", values.get("image_std", STD))


def _rgb(path: epath.Path, key: str, value: object) -> tuple[float, ...]:
    is_list = isinstance(value, list | tuple) and len(value) == 3
    if not (is_list and all(isinstance(number, int | float) for number in value)):
        raise UserError(f"{path}: {key}={value!r}: must be a list of 3 numbers.")
    return tuple(value)


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}). Download it again.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object. Download it again.")
    return values
