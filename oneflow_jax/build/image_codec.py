"""Builder of the codec, and of the sizes of images, from a configuration."""

import inspect
from collections.abc import Callable

import ml_collections
from etils import epath

from oneflow_jax import shipped
from oneflow_jax.build import paradigms
from oneflow_jax.codecs import patches
from oneflow_jax.codecs.autoencoder import config as architectures
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.codecs.autoencoder.codec import LatentCodec, VQCodec
from oneflow_jax.codecs.base import Codec
from oneflow_jax.data import image_shapes
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import path_keys, storage


def get_aspect_ratios(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Return the aspect ratios of images; autoencoders are trained on squares alone.

    Raises:
        UserError: the paradigm supports only squares.
    """
    ratios = tuple(config.data.get("aspect_ratios", (image_shapes.SQUARE,)))
    if ratios != (image_shapes.SQUARE,) and config.paradigm.name in paradigms.VARIABLE_LENGTH:
        raise UserError(
            f"data.aspect_ratios={ratios!r}: {config.paradigm.name} generates square images only. "
            f"Set data.aspect_ratios=({image_shapes.SQUARE!r},), or use oneflow or mask_flow."
        )
    return ratios


def compute_crop_sizes(config: ml_collections.ConfigDict) -> tuple[image_shapes.Size, ...]:
    """Return the sizes to which images are cropped (`image_shapes.ImageShapes.crop_sizes`).

    Raises:
        UserError: the paradigm supports only squares, or two ratios have the same size.
    """
    ratios = get_aspect_ratios(config)
    if ratios == (image_shapes.SQUARE,):
        return ()
    shapes = image_shapes.ImageShapes(config.codec.pixels, _count_slot_pixels(config), ratios)
    return shapes.crop_sizes


def _count_slot_pixels(config: ml_collections.ConfigDict) -> int:
    """Return height and width of a slot, in pixels, without loading an autoencoder's parameters."""
    patch_size = config.codec.get("patch_size", 1)
    if "path" not in config.codec:
        return patch_size
    folder = _find_autoencoder(config.codec.path)
    return architectures.read(folder).downscale_factor * patch_size


def make_without_stats(config: ml_collections.ConfigDict) -> Codec:
    """Build the configured codec, without statistics of latents.

    Raises:
        UserError: a value is wrong, or `codec` lacks a key or has an unknown one.
    """
    codec_args = config.codec.to_dict()
    name = codec_args.pop("name", None)
    makers: dict[str, Callable[..., Codec]] = {
        "patches": patches.PatchCodec,
        "vae": _make_uncalibrated_codec,
        "vq": _make_vq_codec,
    }
    maker = paradigms.choose("codec.name", name, makers)
    required = inspect.signature(maker).parameters.keys()
    if codec_args.keys() != required:
        raise UserError(
            f"codec.name={name!r} requires exactly the keys {', '.join(required)} of codec; "
            f"missing: {', '.join(sorted(required - codec_args.keys())) or 'none'}; unknown: "
            f"{', '.join(sorted(codec_args.keys() - required)) or 'none'}."
        )
    return maker(**codec_args)


def _make_uncalibrated_codec(
    path: str, pixels: int, patch_size: int, divisor: float
) -> LatentCodec:
    """Build a latent codec with mean 0 and std 1, to find wrong settings before data is encoded."""
    autoencoder = Autoencoder.load(_find_autoencoder(path))
    channels = autoencoder.architecture.channels
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return LatentCodec(autoencoder, pixels, patch_size, mean=zeros, std=ones, divisor=divisor)


def _make_vq_codec(path: str, pixels: int) -> VQCodec:
    return VQCodec(Autoencoder.load(_find_autoencoder(path)), pixels)


def _find_autoencoder(path: str) -> epath.Path:
    if path == path_keys.SHIPPED_CODEC:
        return epath.Path(shipped.CODEC)
    folder = storage.resolve_path(path, "codec.path")
    if not folder.exists():
        raise UserError(
            f"codec.path={path}: there is no such folder. Train an autoencoder with "
            "--config=configs/codec.py:kl or :vq, or give the folder of an existing one with "
            f"its config.json and .safetensors file.{path_keys.describe(path, 'codec.path')}"
        )
    return folder
