"""Architecture of an autoencoder, in the format of the file `config.json` of diffusers."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

from etils import epath

from oneflow_jax.errors import UserError, check_integer, check_one_of, check_real

CONFIG_FILE = "config.json"

KINDS = ("AutoencoderKL", "VQModel")

_BLOCK_TYPES = ("DownEncoderBlock2D", "UpDecoderBlock2D")

_SUPPORTED_VALUES = {
    "act_fn": ("silu",),
    "norm_type": ("group",),
    "lookup_from_codebook": (False,),
}
"""The only supported values of keys for which diffusers allows more values."""

_BLOCK_TYPE_KEYS = ("down_block_types", "up_block_types")

_MAX_WIDTH = 2**16

_MAX_COUNTS = {
    "in_channels": _MAX_WIDTH,
    "out_channels": _MAX_WIDTH,
    "layers_per_block": 128,
    "latent_channels": _MAX_WIDTH,
    "norm_num_groups": _MAX_WIDTH,
    "num_vq_embeddings": 2**24,  # Codes are stored as float32.
    "vq_embed_dim": _MAX_WIDTH,
}
"""Maximum of each count. Without it, a damaged file could describe a huge network."""

_SWITCHES = ("mid_block_add_attention", "use_quant_conv", "use_post_quant_conv")

_SEQUENCES = ("block_out_channels", "latents_mean", "latents_std")

_IGNORED_KEYS = ("sample_size", "force_upcast")
"""Keys of diffusers that do not affect the network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """Architecture of an `AutoencoderKL` or a `VQModel`, with the names and defaults of diffusers.

    Attributes:
        kind: model class, one of `KINDS`.
        in_channels, out_channels: number of image channels.
        block_out_channels: number of channels of each level, from the highest to the lowest
            resolution. In the encoder, each level except the last halves height and width.
        layers_per_block: number of residual blocks per level of the encoder. The decoder has one
            more block per level.
        latent_channels: number of channels of the latents.
        norm_num_groups: number of groups of group normalization; must divide every width.
        mid_block_add_attention: whether the lowest-resolution level has self-attention.
        use_quant_conv, use_post_quant_conv: whether an AutoencoderKL has 1 x 1 convolutions before
            and after the latents; a VQModel always has them.
        scaling_factor, shift_factor: normalization of the latents of an AutoencoderKL for
            diffusion models, (z - shift) * scaling.
        latents_mean, latents_std: mean and standard deviation of each channel of the latents of an
            AutoencoderKL, for the normalization (z - mean) * scaling / std. With None, latents are
            not normalized in this way.
        num_vq_embeddings: number of codes of a VQModel.
        vq_embed_dim: number of channels of a code vector; None means `latent_channels`.
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
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    num_vq_embeddings: int = 256
    vq_embed_dim: int | None = None

    def __post_init__(self) -> None:
        """Check that a network can be built.

        Raises:
            UserError: a value has another type or is out of range, a width is not a multiple of
                `norm_num_groups`, or the statistics of the latents do not fit the channels.
        """
        check_one_of("autoencoder.kind", self.kind, KINDS)
        for name, maximum in _MAX_COUNTS.items():
            value = getattr(self, name)
            if value is not None or name != "vq_embed_dim":
                check_integer(f"autoencoder.{name}", value, 1, maximum)
        for name in _SWITCHES:
            if not isinstance(value := getattr(self, name), bool):
                raise UserError(f"autoencoder.{name}={value!r}: give True or False.")
        check_real("autoencoder.scaling_factor", self.scaling_factor, 0, allow_minimum=False)
        if self.shift_factor is not None:
            check_real("autoencoder.shift_factor", self.shift_factor)
        self._check_widths()
        self._check_latent_statistics()

    def _check_widths(self) -> None:
        _check_sequence("block_out_channels", self.block_out_channels)
        for index, width in enumerate(self.block_out_channels):
            check_integer(f"autoencoder.block_out_channels[{index}]", width, 1, _MAX_WIDTH)
        odd = [width for width in self.block_out_channels if width % self.norm_num_groups]
        if odd or not self.block_out_channels:
            raise UserError(
                f"autoencoder.block_out_channels={self.block_out_channels}: give multiples of "
                f"norm_num_groups={self.norm_num_groups}."
            )

    def _check_latent_statistics(self) -> None:
        known = {"latents_mean": self.latents_mean, "latents_std": self.latents_std}
        if set(known.values()) == {None}:
            return
        for name, values in known.items():
            _check_sequence(name, values)
            if self.kind == "VQModel" or len(values) != self.latent_channels:
                raise UserError(
                    f"autoencoder.{name}={values}: give latents_mean and latents_std of an "
                    f"AutoencoderKL, one number for each of latent_channels={self.latent_channels},"
                    " or neither."
                )
            for index, value in enumerate(values):
                field = f"autoencoder.{name}[{index}]"
                if name == "latents_std":
                    check_real(field, value, 0, allow_minimum=False)
                else:
                    check_real(field, value)

    @property
    def downscale_factor(self) -> int:
        """Height and width of a latent, in pixels."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """The number of channels of the latent grid, C."""
        if self.kind == "VQModel":
            return self.vq_embed_dim or self.latent_channels
        return self.latent_channels

    def to_json(self) -> str:
        """Return the text of a `config.json` that diffusers can read."""
        values = dataclasses.asdict(self)
        kind = values.pop("kind")
        kl_only = ("use_quant_conv", "use_post_quant_conv", "shift_factor")
        vq_only = ("num_vq_embeddings", "vq_embed_dim")
        for name in vq_only if kind == "AutoencoderKL" else kl_only:
            del values[name]
        if self.latents_mean is None:
            del values["latents_mean"], values["latents_std"]
        levels = len(self.block_out_channels)
        blocks = {
            name: [plain] * levels
            for name, plain in zip(_BLOCK_TYPE_KEYS, _BLOCK_TYPES, strict=True)
        }
        return json.dumps({"_class_name": kind, **values, **blocks}, indent=2) + "\n"


def read(folder: epath.Path) -> Architecture:
    """Read the architecture from the `config.json` in a folder.

    Raises:
        UserError: the file is missing, is not JSON, or describes an unsupported architecture. The
            message names the key and its value.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(
            f"{path}: the file does not exist. Give the folder of an autoencoder, with "
            f"{CONFIG_FILE} and a .safetensors file, as diffusers saves them."
        )
    try:
        values = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}). Download it again.") from error
    if not isinstance(values, Mapping):
        raise UserError(f"{path} does not hold a JSON object. Download it again.")
    return _parse_architecture(path, values)


def _parse_architecture(path: epath.Path, values: Mapping[str, Any]) -> Architecture:
    fields = {field.name for field in dataclasses.fields(Architecture)} - {"kind"}
    kind = values.get("_class_name", "AutoencoderKL")
    check_one_of(f"{path}: _class_name", kind, KINDS)
    for name, value in values.items():
        odd = name not in fields and name not in (
            *_SUPPORTED_VALUES,
            *_BLOCK_TYPE_KEYS,
            *_IGNORED_KEYS,
        )
        if odd and not name.startswith("_"):
            raise UserError(
                f"{path}: {name}={value!r} is unknown and may affect the network. Give another "
                "model."
            )
        if value not in _SUPPORTED_VALUES.get(name, (value,)):
            raise UserError(
                f"{path}: {name}={value!r} is not supported; only {_SUPPORTED_VALUES[name]} is."
            )
    known = {name: values[name] for name in fields if name in values}
    # null in the file means the default. Models with per-channel statistics have a null
    # scaling_factor.
    known = {name: value for name, value in known.items() if value is not None}
    if kind == "VQModel":
        known.setdefault("latent_channels", 3)  # The default of diffusers differs by kind.
    for name in _SEQUENCES:
        if isinstance(known.get(name), list):
            known[name] = tuple(known[name])
    try:
        architecture = Architecture(kind=kind, **known)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    for name, block in zip(_BLOCK_TYPE_KEYS, _BLOCK_TYPES, strict=True):
        blocks = [block] * len(architecture.block_out_channels)
        if values.get(name) not in (None, blocks):
            raise UserError(
                f"{path}: {name}={values[name]!r}: only {block} is supported. Give it once for "
                f"each of block_out_channels={architecture.block_out_channels}."
            )
    return architecture


def _check_sequence(name: str, values: object) -> None:
    if not isinstance(values, tuple):
        raise UserError(f"autoencoder.{name}={values!r}: not a sequence. Give numbers in brackets.")
