"""The shape of a CLIP model, as Hugging Face's `config.json` tells it."""

import dataclasses
import json
from typing import Any

from etils import epath

from oneflow_jax.errors import UserError

CONFIG_FILE = "config.json"

ACTIVATIONS = ("quick_gelu", "gelu")

PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""Where it may be said how pictures are prepared; in the latter under "image_processor"."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the colors of OpenAI's pictures, 0 to 1, which a model has unless it says otherwise."""

LEGACY_EOS = 2
"""The `eos_token_id` that OpenAI's models were converted with, by mistake: the highest is meant."""

_BICUBIC = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Shape of one of the two transformers; names of fields are transformers'.

    Attributes:
        hidden_size: width.
        intermediate_size: width inside the MLP.
        num_hidden_layers: layers.
        num_attention_heads: heads; divides the width.
        hidden_act: one of `ACTIVATIONS`.
        layer_norm_eps: added to the variance by layer normalization.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int = 12
    num_attention_heads: int
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(TowerConfig):
    """Shape of the transformer for captions; defaults are transformers'.

    Attributes:
        vocab_size: tokens that there are.
        max_position_embeddings: tokens in a caption, with those at its start and end.
        eos_token_id: the token at the end, where the caption is read; or `LEGACY_EOS`.
    """

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(TowerConfig):
    """Shape of the transformer for pictures; defaults are transformers'.

    Attributes:
        image_size: height and width of a picture.
        patch_size: of a patch.
        num_channels: colors, 3.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Shape of a CLIP model.

    Attributes:
        text, vision: the two transformers.
        projection_dim: numbers that captions and pictures are compared by.
        mean, deviation: that colors, 0 to 1, are normalized with.
    """

    text: TextConfig
    vision: VisionConfig
    projection_dim: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


def read(folder: epath.Path) -> ClipConfig:
    """The shape of the model in a folder.

    Raises:
        UserError: there is no `config.json`, it is not JSON, or describes something that is not
            built here; the message names the file, the key and its value.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        raise UserError(
            f"{path}: there is no such file. Give the folder of a CLIP model, with {CONFIG_FILE}, "
            "model.safetensors and tokenizer.json, as Hugging Face has them."
        )
    values = _read_json(path)
    if values.get("model_type") != "clip":
        raise UserError(f"{path}: model_type={values.get('model_type')!r}: only 'clip' is read.")
    vision = _parse_tower(path, values, "vision_config", VisionConfig)
    mean, deviation = _image_normalization(folder, vision.image_size)
    return ClipConfig(
        text=_parse_tower(path, values, "text_config", TextConfig),
        vision=vision,
        projection_dim=_positive_value(
            path, "projection_dim", values.get("projection_dim", 512), int
        ),
        mean=mean,
        deviation=deviation,
    )


def _parse_tower(path: epath.Path, values: dict, key: str, kind: type[TowerConfig]) -> Any:  # noqa: ANN401 - a `kind`
    """The transformer that a part of `config.json` describes."""
    # Some of OpenAI's have a second copy, which counts where there is one.
    second = values.get(f"{key}_dict")
    told = values.get(key, {}) if second is None else second
    if not isinstance(told, dict):
        raise UserError(f"{path}: {key}={told!r}: only an object is read.")
    tower = kind(**{
        field.name: _positive_value(path, f"{key}.{field.name}", told[field.name], field.type)
        for field in dataclasses.fields(kind)
        if field.name in told
    })  # fmt: skip
    if tower.hidden_size % tower.num_attention_heads:
        raise UserError(
            f"{path}: {key}.hidden_size={tower.hidden_size} is no multiple of "
            f"num_attention_heads={tower.num_attention_heads}."
        )
    if tower.hidden_act not in ACTIVATIONS:
        raise UserError(
            f"{path}: {key}.hidden_act={tower.hidden_act!r}: only {', '.join(ACTIVATIONS)} are "
            "built here."
        )
    if kind is VisionConfig and (tower.num_channels != 3 or tower.patch_size > tower.image_size):
        raise UserError(
            f"{path}: {key} has num_channels={tower.num_channels}, patch_size={tower.patch_size}, "
            f"image_size={tower.image_size}: only patches inside of pictures in RGB are read."
        )
    return tower


def _positive_value(path: epath.Path, key: str, value: object, kind: type) -> Any:  # noqa: ANN401 - a `kind`
    """The value, if it is of that kind, and above 0 if a number."""
    if type(value) is not kind or (kind is not str and not value > 0):
        raise UserError(f"{path}: {key}={value!r}: only a {kind.__name__} above 0 is read.")
    return value


def _image_normalization(
    folder: epath.Path, image_size: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of colors; refuses other preparations than CLIP's."""
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
            raise UserError(f"{path}: {key}={values[key]!r}: only {allowed[-1]!r} is read.")
    mean = _rgb(path, "image_mean", values.get("image_mean", MEAN))
    return mean, _rgb(path, "image_std", values.get("image_std", STD))


def _rgb(path: epath.Path, key: str, value: object) -> tuple[float, ...]:
    is_list = isinstance(value, list | tuple) and len(value) == 3
    if not (is_list and all(isinstance(number, int | float) for number in value)):
        raise UserError(f"{path}: {key}={value!r}: only a list of 3 numbers is read.")
    return tuple(value)


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no JSON ({error}). Fetch it again.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is no JSON object. Fetch it again.")
    return values
