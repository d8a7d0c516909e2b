"""The shape of an autoencoder, as a diffusers `config.json` tells it."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

from etils import epath

from oneflow_jax.errors import UserError

CONFIG_FILE = "config.json"

KINDS = ("AutoencoderKL", "VQModel")

_BLOCK_TYPES = ("DownEncoderBlock2D", "UpDecoderBlock2D")

_SUPPORTED_VALUES = {
    "act_fn": ("silu",),
    "norm_type": ("group",),
    "lookup_from_codebook": (False,),
    "latents_mean": (None,),
    "latents_std": (None,),
}
"""Variations of diffusers that are not built here, and the values that are."""

_BLOCK_TYPE_KEYS = ("down_block_types", "up_block_types")

_IGNORED_KEYS = ("sample_size", "force_upcast")
"""What diffusers keeps there that changes no network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """Shape of an `AutoencoderKL` or a `VQModel`; field names and defaults are diffusers'.

    Attributes:
        kind: one of `KINDS`.
        in_channels, out_channels: colors of a picture.
        block_out_channels: width of each level, from full size down; each level but the last
            halves height and width.
        layers_per_block: residual blocks of a level; the decoder has one more.
        latent_channels: numbers in a latent.
        norm_num_groups: of group normalization; divides every width.
        mid_block_add_attention: whether the innermost level attends.
        use_quant_conv, use_post_quant_conv: 1 x 1 convolutions around the latents of a KL model; a
            VQModel always has them.
        scaling_factor, shift_factor: (z - shift) * scaling is what diffusion models see of a KL
            model's latents.
        num_vq_embeddings, vq_embed_dim: codes, and numbers in a code, of a VQModel; the latter is
            `latent_channels` where None.
    """

    kind: Literal["AutoencoderKL", "VQModel"]
    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    num_vq_embeddings: int = 256
    vq_embed_dim: int | None = None

    def __post_init__(self) -> None:
        """Refuses what no network can be made of.

        Raises:
            UserError: as said.
        """
        if self.kind not in KINDS:
            raise UserError(f"autoencoder kind={self.kind!r} is none of {', '.join(KINDS)}.")
        odd = [width for width in self.block_out_channels if width % self.norm_num_groups]
        if odd or not self.block_out_channels:
            raise UserError(
                f"autoencoder block_out_channels={self.block_out_channels}: give multiples of "
                f"norm_num_groups={self.norm_num_groups}."
            )

    @property
    def factor(self) -> int:
        """How many pixels a latent is wide and high."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """Numbers in one place of the latent grid, C."""
        if self.kind == "VQModel":
            return self.vq_embed_dim or self.latent_channels
        return self.latent_channels

    def to_json(self) -> str:
        """The `config.json` that diffusers reads."""
        values = dataclasses.asdict(self)
        kind = values.pop("kind")
        kl_only = ("use_quant_conv", "use_post_quant_conv", "shift_factor")
        vq_only = ("num_vq_embeddings", "vq_embed_dim")
        for name in vq_only if kind == "AutoencoderKL" else kl_only:
            del values[name]
        levels = len(self.block_out_channels)
        blocks = {
            name: [plain] * levels
            for name, plain in zip(_BLOCK_TYPE_KEYS, _BLOCK_TYPES, strict=True)
        }
        return json.dumps({"_class_name": kind, **values, **blocks}, indent=2) + "\n"


def read(folder: epath.Path) -> Architecture:
    """The architecture that `config.json` in a folder describes.

    Raises:
        UserError: there is none, it is not JSON, or it describes something that is not built here;
            the message names the key and its value.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        raise UserError(
            f"{path}: there is no such file. Give the folder of an autoencoder, with {CONFIG_FILE} "
            "and "
            "a .safetensors file, as diffusers saves them."
        )
    try:
        values = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, Mapping):
        raise UserError(f"{path} holds no settings.")
    return _parse_architecture(path, values)


def _parse_architecture(path: epath.Path, values: Mapping[str, Any]) -> Architecture:
    fields = {field.name for field in dataclasses.fields(Architecture)} - {"kind"}
    kind = values.get("_class_name", "AutoencoderKL")
    if kind not in KINDS:
        raise UserError(f"{path}: _class_name={kind!r} is none of {', '.join(KINDS)}.")
    for name, value in values.items():
        odd = name not in fields and name not in (
            *_SUPPORTED_VALUES,
            *_BLOCK_TYPE_KEYS,
            *_IGNORED_KEYS,
        )
        if odd and not name.startswith("_"):
            raise UserError(f"{path}: {name}={value!r} is not known here, and may matter.")
        if value not in _SUPPORTED_VALUES.get(name, (value,)):
            raise UserError(
                f"{path}: {name}={value!r} is not built here; only {_SUPPORTED_VALUES[name]} is."
            )
        if name in _BLOCK_TYPE_KEYS and not set(value) <= set(_BLOCK_TYPES):
            raise UserError(
                f"{path}: {name}={value!r}: only {', '.join(_BLOCK_TYPES)} are built here."
            )
    given = {name: values[name] for name in fields if name in values}
    # Models that have statistics of their own, not one scale, say so by None.
    given = {name: value for name, value in given.items() if value is not None}
    if kind == "VQModel":
        given.setdefault("latent_channels", 3)  # There the two kinds' defaults differ.
    if "block_out_channels" in given:
        given["block_out_channels"] = tuple(given["block_out_channels"])
    try:
        return Architecture(kind=kind, **given)
    except (TypeError, UserError) as error:
        raise UserError(f"{path}: {error}") from error
