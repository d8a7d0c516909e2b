"""CLIP score: how well an image and its caption match according to CLIP.

Hessel et al., CLIPScore: A Reference-free Evaluation Metric for Image Captioning (2021), eq. 1:
w max(cos(image, caption), 0). The authors use w = 2.5 and prepend "A photo depicts" to each
caption. This module uses w = 100 and unchanged captions, as in the definition of torchmetrics'
CLIPScore. The score of each pair is clipped at 0, as in the equation, whereas the code of
torchmetrics clips the mean over all pairs. Compare only scores of the same CLIP model.

The user provides the model: a folder in Hugging Face's layout, with `config.json`,
`model.safetensors` (or `pytorch_model.bin`) and `tokenizer.json`.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float, Int, UInt8
from PIL import Image

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import batches, clip_config, clip_network
from oneflow_jax.pretrained.clip_config import LEGACY_EOS, ClipConfig
from oneflow_jax.pretrained.clip_network import TextParams, VisionParams
from oneflow_jax.pretrained.tensors import TensorFile
from oneflow_jax.pretrained.weights import INSTALL_HINT

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Names of weight files in order of precedence; the first existing file is read."""

TOKENIZER_FILE = "tokenizer.json"

_IGNORED_TENSORS = ("logit_scale", ".embeddings.position_ids")
"""Stored tensors that the score does not need: the training temperature and position indices."""


class Clip(NamedTuple):
    """A CLIP model.

    Attributes:
        config: configuration of the model.
        text, vision: weights of the two transformers.
        tokenizer: a `tokenizers.Tokenizer` that truncates captions to the model's length.
    """

    config: ClipConfig
    text: TextParams
    vision: VisionParams
    tokenizer: Any


def load(folder: str | os.PathLike) -> Clip:
    """Load the model in the user's folder.

    Raises:
        UserError: a file is missing, broken, or does not fit `config.json`; or the package
            `tokenizers` is not installed. The message names the file, the key and the shape.
    """
    folder = epath.Path(folder)
    config = clip_config.read(folder)
    tokenizer = _load_tokenizer(folder / TOKENIZER_FILE, config.text.max_position_embeddings)
    here = [folder / name for name in WEIGHT_FILES if (folder / name).exists()]
    stored = TensorFile(here[0] if here else folder / WEIGHT_FILES[0])
    text = clip_network.read_text_params(stored, config)
    vision = clip_network.read_vision_params(stored, config)
    stored.discard(*_IGNORED_TENSORS)
    stored.assert_empty()
    return Clip(config, text, vision, tokenizer)


def scores(
    clip: Clip, images: UInt8[np.ndarray, "n h w 3"], captions: Sequence[str], batch_size: int = 16
) -> Float[np.ndarray, "n"]:
    """Compute the CLIP score of each image with its caption: 100 max(cosine, 0), 0 to 100.

    Args:
        clip: model returned by `load`.
        images: RGB images, 0 to 255, all of one size.
        captions: one caption per image.
        batch_size: number of images or captions per forward pass.

    Raises:
        UserError: the images are not uint8 RGB images, the numbers of images and captions differ,
            `batch_size` is below 1, or the tokenizer belongs to another model.
    """
    batches.validate_images(images, "CLIP")
    if len(images) != len(captions):
        raise UserError(
            f"CLIP needs one caption per image, not {len(captions)} captions for {len(images)} "
            "images."
        )
    seen, read = (
        image_embeddings(clip, images, batch_size),
        text_embeddings(clip, captions, batch_size),
    )
    return 100 * np.maximum(np.sum(seen * read, axis=1), 0)


def image_embeddings(
    clip: Clip, images: UInt8[np.ndarray, "n h w 3"], batch_size: int = 16
) -> Float[np.ndarray, "n P"]:
    """Encode images as vectors of length 1.

    Raises:
        UserError: the images are not uint8 RGB images, or `batch_size` is below 1.
    """
    batches.validate_images(images, "CLIP")
    config = clip.config

    def encode(batch: UInt8[np.ndarray, "B h w 3"]) -> Float[np.ndarray, "B P"]:
        cropped = preprocess(batch, config.vision.image_size)
        return clip_network.encode_image(clip.vision, config, cropped)

    return batches.apply_batched(encode, images, batch_size, config.projection_dim)


def text_embeddings(
    clip: Clip, captions: Sequence[str], batch_size: int = 16
) -> Float[np.ndarray, "n P"]:
    """Encode captions as vectors of length 1.

    Raises:
        UserError: `batch_size` is below 1, or the tokenizer belongs to another model.
    """
    read = functools.partial(clip_network.encode_text, clip.text, clip.config.text)
    return batches.apply_batched(
        read, tokenize(clip, captions), batch_size, clip.config.projection_dim
    )


def preprocess(
    images: UInt8[np.ndarray, "n h w 3"], image_size: int
) -> UInt8[np.ndarray, "n size size 3"]:
    """Resize each image and crop its center square, as in the training of CLIP.

    Pillow resizes the shorter side to `image_size` pixels with bicubic interpolation and rounds to
    integers. Resizing with another library would change the score.
    """
    height, width = images.shape[1:3]
    shorter = min(height, width)
    high, wide = (int(image_size * side / shorter) for side in (height, width))
    top, left = (high - image_size) // 2, (wide - image_size) // 2
    squares = np.empty((len(images), image_size, image_size, 3), np.uint8)
    for square, picture in zip(squares, images, strict=True):
        resized = Image.fromarray(picture).resize((wide, high), Image.Resampling.BICUBIC)
        square[:] = np.asarray(resized)[top : top + image_size, left : left + image_size]
    return squares


def tokenize(clip: Clip, captions: Sequence[str]) -> Int[np.ndarray, "n L"]:
    """Tokenize captions, truncated to the model's length and padded with the end token.

    Raises:
        UserError: the tokenizer belongs to another model.
    """
    shape = clip.config.text
    rows = np.zeros((len(captions), shape.max_position_embeddings), np.int32)
    for row, encoding in zip(rows, clip.tokenizer.encode_batch(list(captions)), strict=True):
        tokens = encoding.ids
        end = max(tokens, default=-1) if shape.eos_token_id == LEGACY_EOS else shape.eos_token_id
        if tokens[-1:] != [end] or max(tokens) >= shape.vocab_size:
            raise UserError(
                f"{TOKENIZER_FILE} tokenizes a caption as {tokens}, but the model needs {end} as "
                f"the end token and tokens below vocab_size={shape.vocab_size}. Check that "
                f"{clip_config.CONFIG_FILE} and {TOKENIZER_FILE} belong to one model."
            )
        row[: len(tokens)] = tokens
        row[len(tokens) :] = end
    return rows


def _load_tokenizer(path: epath.Path, max_length: int) -> Any:  # noqa: ANN401 - of an optional package
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(
            f"The package tokenizers is not installed. Run `{INSTALL_HINT}`."
        ) from error
    if not path.exists():
        raise UserError(f"{path}: the file does not exist. Copy it from the CLIP model's folder.")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(path.read_text())
    except Exception as error:  # `tokenizers` raises a plain `Exception`.
        raise UserError(
            f"{path}: not a tokenizer file ({error}). Download the file again."
        ) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer
