"""From configuration to what goes in: documents, tokenizer, codec, latents."""

import dataclasses
import functools
import inspect
import io
from collections.abc import Callable

import ml_collections
import numpy as np
from etils import epath

from oneflow_jax.build import paradigms
from oneflow_jax.codecs import patches
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.codecs.autoencoder.codec import LatentCodec, TokenEncoder, VQCodec
from oneflow_jax.codecs.base import Codec
from oneflow_jax.data import encode_latents, fitting, latents, sources, splits
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.custom import manifest, prepare
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, storage, workdir

ENCODED_SPLITS = ("train", "heldout")
"""Splits that training and held-out losses read, as latents if the codec is a learned one."""

TOKENIZER_TRAINING_DOCUMENTS = 20_000
"""The tokenizer is learned from so many documents at most."""


def open_split(config: ml_collections.ConfigDict, split: str) -> sources.Source:
    """The documents of one split of the configured data set, prepared if need be."""
    if config.source.name == manifest.DATASET_NAME:
        settings = prepare.parse_config(config.source)
        return prepare.open_split(settings, config.data.dir, split, config.data.preparing)
    return sources.open_dataset(data_dir=config.data.dir, split=split, **config.source)


def make_layout(config: ml_collections.ConfigDict, folder: epath.Path) -> layouts.Layout:
    """How documents become slots.

    What the run keeps of its inputs is in `folder`: the tokenizer, and what there is to know of a
    learned codec's latents. It is made at the first call, and with it the data.

    Raises:
        UserError: a value is wrong, or the codec is another than the run's.
    """
    kept = _has_saved_inputs(config, folder)
    distributed.barrier()  # Nobody makes what another has yet to look for.
    if not kept:
        with distributed.primary_first():
            open_split(config, "train")
    codec = _load_codec(config, folder)
    with distributed.primary_first():
        vocab = _load_or_train_vocab(config, folder, codec.codes)
    return _build_layout(config, vocab, codec)


def _has_saved_inputs(config: ml_collections.ConfigDict, folder: epath.Path) -> bool:
    """Whether the folder alone tells how to lay documents out, and no data is needed for that."""
    needed = [workdir.TOKENIZER] + [workdir.LATENTS] * (config.codec.get("name") != "patches")
    return all((folder / name).exists() for name in needed)


def abstract_layout(config: ml_collections.ConfigDict) -> layouts.Layout:
    """The layout's sizes, without data or tokenizer: it can lay out no words, and decode nothing.

    The vocabulary is as large as it may become, and a learned codec knows no scale.

    Raises:
        UserError: a value is wrong.
    """
    codec = _codec_without_stats(config)
    text = range(len(vocabs.SPECIALS), config.data.vocab)
    return _build_layout(config, vocabs.AbstractVocab(text, codec.codes), codec)


def _build_layout(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> layouts.Layout:
    return layouts.Layout(
        vocab=vocab,
        codec=codec,
        length=config.data.length,
        text_slots=config.data.text_slots,
        markers=config.paradigm.name in paradigms.AUTOREGRESSIVE,
        text_first=config.paradigm.name in paradigms.TEXT_FIRST,
    )


def prepare_data(config: ml_collections.ConfigDict, layout: layouts.Layout) -> str:
    """Makes what is missing of the data, if anything, and says in a line what there is."""
    codec = layout.codec
    if _filters_length(config):
        counts = {
            split: len(open_pipeline_split(config, layout, split)) for split in ENCODED_SPLITS
        }
        where = config.data.dir
    elif isinstance(codec, patches.PatchCodec):
        counts = {"train": len(open_split(config, "train"))}
        where = config.data.dir
    else:
        stored = _latent_dataset(config, codec)
        counts, where = stored.index().documents, stored.folder
    told = ", ".join(f"{count} documents of {split!r}" for split, count in counts.items())
    return f"Prepared: {told}, in {where}"


def open_pipeline_split(
    config: ml_collections.ConfigDict, layout: layouts.Layout, split: str
) -> sources.Source:
    """The documents of a split as the pipeline reads them.

    With latents, if the codec learned; and none of them too long, unless that is an error.
    """
    codec = layout.codec
    if isinstance(codec, patches.PatchCodec):
        found = open_split(config, split)
    else:
        found = _latent_dataset(config, codec).opened(split)
    if not _filters_length(config):
        return found
    return fitting.ChunkedSource(found, layout, chunk_counts(config, layout, split))


def chunk_counts(
    config: ml_collections.ConfigDict, layout: layouts.Layout, split: str
) -> np.ndarray:
    """In how many pieces each document of a split is used; told once, and kept with the data."""
    made = (
        _source_id(config), split, config.data.long, layout.length, layout.text_slots,
        layout.markers, layout.text_first, layout.codec.grid, layout.vocab.model,
    )  # fmt: skip
    mark = splits.hash_bucket(repr(made), 16**8)
    path = epath.Path(config.data.dir) / "fitted" / f"{_source_id(config)}_{mark:08x}.npy"
    with distributed.primary_first():
        if not path.exists():
            counted = fitting.count_chunks(open_split(config, split), layout, config.data.long)
            path.parent.mkdir(parents=True, exist_ok=True)
            file = io.BytesIO()
            np.save(file, counted)
            workdir.write_atomically(path, file.getvalue())
    counted = np.load(io.BytesIO(path.read_bytes()))
    if not counted.any():
        raise UserError(
            f"No document of {split!r} fits data.length={layout.length} with data.long="
            f"{config.data.long!r}: raise data.length, or set data.long='cut'."
        )
    return counted


def _filters_length(config: ml_collections.ConfigDict) -> bool:
    return config.source.name == manifest.DATASET_NAME or config.data.long != "error"


def _load_codec(config: ml_collections.ConfigDict, folder: epath.Path) -> Codec:
    """The configured codec; what a learned one needs to know of the data is kept in the run."""
    codec = _codec_without_stats(config)
    if isinstance(codec, patches.PatchCodec):
        return codec
    index = _load_latent_index(config, folder, codec)
    if isinstance(codec, VQCodec):
        return codec
    return dataclasses.replace(codec, mean=index.mean, scale=index.deviation)


def _codec_without_stats(config: ml_collections.ConfigDict) -> Codec:
    """The configured codec before it knows the data."""
    given = config.codec.to_dict()
    name = given.pop("name", None)
    makers: dict[str, Callable[..., Codec]] = {
        "patches": patches.PatchCodec,
        "learned": _uncalibrated_codec,
        "codes": _vq_codec,
    }
    maker = paradigms.choose("codec.name", name, makers)
    wanted = inspect.signature(maker).parameters.keys()
    if given.keys() != wanted:
        raise UserError(
            f"codec.name={name!r} goes with the keys {', '.join(wanted)} of codec, all of them; "
            f"missing: {', '.join(sorted(wanted - given.keys())) or 'none'}; unknown: "
            f"{', '.join(sorted(given.keys() - wanted)) or 'none'}."
        )
    return maker(**given)


def _uncalibrated_codec(path: str, pixels: int, patch: int, deviation: float) -> LatentCodec:
    """The codec before it knows the data: what does not fit is told before latents are made."""
    autoencoder = _load_autoencoder(path)
    channels = autoencoder.shape.channels
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return LatentCodec(autoencoder, pixels, patch, mean=zeros, scale=ones, deviation=deviation)


def _vq_codec(path: str, pixels: int) -> VQCodec:
    return VQCodec(_load_autoencoder(path), pixels)


def _load_autoencoder(path: str) -> Autoencoder:
    folder = storage.resolve_path(path, "codec.path")
    if not folder.exists():
        raise UserError(
            f"codec.path={path}: there is no such folder. Train an autoencoder, with "
            "--config=configs/codec.py:kl or :vq, or give the folder of one that you have, with "
            "its config.json and .safetensors file."
        )
    return Autoencoder.load(folder)


def _load_latent_index(
    config: ml_collections.ConfigDict, folder: epath.Path, codec: LatentCodec | VQCodec
) -> latents.LatentIndex:
    """What the run has kept of its codec, held against the codec that is there."""
    kept = folder / workdir.LATENTS
    stored = _latent_dataset(config, codec)
    known = kept.exists()
    distributed.barrier()  # Nobody makes what another has yet to look for.
    if not known:
        workdir.write_atomically(kept, stored.index().to_json())
        distributed.barrier()
    return latents.read_index(kept, stored.autoencoder.fingerprint)


def _latent_dataset(
    config: ml_collections.ConfigDict, codec: LatentCodec | VQCodec
) -> encode_latents.LatentDataset:
    autoencoder = TokenEncoder(codec.autoencoder) if codec.codes else codec.autoencoder
    return encode_latents.LatentDataset(
        folder=epath.Path(config.data.dir)
        / "latents"
        / f"{_source_id(config)}_{autoencoder.fingerprint}",
        autoencoder=autoencoder,
        splits={split: functools.partial(open_split, config, split) for split in ENCODED_SPLITS},
        pixels=config.codec.pixels,
    )


def _source_id(config: ml_collections.ConfigDict) -> str:
    """For folders and files: another one for other settings."""
    given = config.source.to_dict()
    return f"{given['name']}_{splits.hash_bucket(repr(sorted(given.items())), 16**8):08x}"


def _load_or_train_vocab(
    config: ml_collections.ConfigDict, folder: epath.Path, num_codes: int
) -> vocabs.Vocab:
    """The run's vocabulary: learned from its training text at the first call, or taken over."""
    path = folder / workdir.TOKENIZER
    given = epath.Path(config.start) / workdir.TOKENIZER
    if not path.exists() and config.start and given.exists():
        workdir.write_atomically(path, given.read_bytes())
    if not path.exists():
        documents = open_split(config, "train")
        count = min(len(documents), TOKENIZER_TRAINING_DOCUMENTS)
        words = (documents[i].words() for i in range(count))
        vocab = vocabs.train_sentencepiece(words, config.data.vocab, config.data.coverage)
        workdir.write_atomically(path, vocab.model)
    return vocabs.Vocab.load(path, num_codes)
