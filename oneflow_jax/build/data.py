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
from oneflow_jax.codecs.autoencoder.codec import AsCodes, Codes, Learned
from oneflow_jax.codecs.base import Codec
from oneflow_jax.data import encode_latents, fitting, latents, sources, splits
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.custom import manifest, prepare
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, storage, workdir

ENCODED = ("train", "heldout")
"""Splits that training and held-out losses read, as latents if the codec is a learned one."""

VOCAB_DOCUMENTS = 20_000
"""The tokenizer is learned from so many documents at most."""


def source(config: ml_collections.ConfigDict, split: str) -> sources.Source:
    """The documents of one split of the configured data set, prepared if need be."""
    if config.source.name == manifest.NAME:
        settings = prepare.settings_of(config.source)
        return prepare.source(settings, config.data.dir, split, config.data.preparing)
    return sources.open_source(data_dir=config.data.dir, split=split, **config.source)


def layout(config: ml_collections.ConfigDict, folder: epath.Path) -> layouts.Layout:
    """How documents become slots.

    What the run keeps of its inputs is in `folder`: the tokenizer, and what there is to know of a
    learned codec's latents. It is made at the first call, and with it the data.

    Raises:
        UserError: a value is wrong, or the codec is another than the run's.
    """
    kept = _keeps_inputs(config, folder)
    distributed.meet()  # Nobody makes what another has yet to look for.
    if not kept:
        with distributed.leader_first():
            source(config, "train")
    codec = _codec(config, folder)
    with distributed.leader_first():
        vocab = _vocab(config, folder, codec.codes)
    return _layout(config, vocab, codec)


def _keeps_inputs(config: ml_collections.ConfigDict, folder: epath.Path) -> bool:
    """Whether the folder alone tells how to lay documents out, and no data is needed for that."""
    needed = [workdir.TOKENIZER] + [workdir.LATENTS] * (config.codec.get("name") != "patches")
    return all((folder / name).exists() for name in needed)


def planned_layout(config: ml_collections.ConfigDict) -> layouts.Layout:
    """The layout's sizes, without data or tokenizer: it can lay out no words, and decode nothing.

    The vocabulary is as large as it may become, and a learned codec knows no scale.

    Raises:
        UserError: a value is wrong.
    """
    codec = _new_codec(config)
    text = range(len(vocabs.SPECIALS), config.data.vocab)
    return _layout(config, vocabs.Planned(text, codec.codes), codec)


def _layout(config: ml_collections.ConfigDict, vocab: vocabs.Ids, codec: Codec) -> layouts.Layout:
    return layouts.Layout(
        vocab=vocab,
        codec=codec,
        length=config.data.length,
        text_slots=config.data.text_slots,
        markers=config.paradigm.name in paradigms.FROM_LEFT_TO_RIGHT,
        text_first=config.paradigm.name in paradigms.TEXT_FIRST,
    )


def prepared(config: ml_collections.ConfigDict, layout: layouts.Layout) -> str:
    """Makes what is missing of the data, if anything, and says in a line what there is."""
    codec = layout.codec
    if _fits(config):
        counts = {split: len(documents(config, layout, split)) for split in ENCODED}
        where = config.data.dir
    elif isinstance(codec, patches.Patches):
        counts = {"train": len(source(config, "train"))}
        where = config.data.dir
    else:
        stored = _latents(config, codec)
        counts, where = stored.index().documents, stored.folder
    told = ", ".join(f"{count} documents of {split!r}" for split, count in counts.items())
    return f"Prepared: {told}, in {where}"


def documents(
    config: ml_collections.ConfigDict, layout: layouts.Layout, split: str
) -> sources.Source:
    """The documents of a split as the pipeline reads them.

    With latents, if the codec learned; and none of them too long, unless that is an error.
    """
    codec = layout.codec
    if isinstance(codec, patches.Patches):
        found = source(config, split)
    else:
        found = _latents(config, codec).opened(split)
    if not _fits(config):
        return found
    return fitting.Fitted(found, layout, pieces(config, layout, split))


def pieces(config: ml_collections.ConfigDict, layout: layouts.Layout, split: str) -> np.ndarray:
    """In how many pieces each document of a split is used; told once, and kept with the data."""
    made = (
        _name_of_source(config), split, config.data.long, layout.length, layout.text_slots,
        layout.markers, layout.text_first, layout.codec.grid, layout.vocab.model,
    )  # fmt: skip
    mark = splits.bucket(repr(made), 16**8)
    path = epath.Path(config.data.dir) / "fitted" / f"{_name_of_source(config)}_{mark:08x}.npy"
    with distributed.leader_first():
        if not path.exists():
            counted = fitting.counts(source(config, split), layout, config.data.long)
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


def _fits(config: ml_collections.ConfigDict) -> bool:
    return config.source.name == manifest.NAME or config.data.long != "error"


def _codec(config: ml_collections.ConfigDict, folder: epath.Path) -> Codec:
    """The configured codec; what a learned one needs to know of the data is kept in the run."""
    codec = _new_codec(config)
    if isinstance(codec, patches.Patches):
        return codec
    index = _kept(config, folder, codec)
    if isinstance(codec, Codes):
        return codec
    return dataclasses.replace(codec, mean=index.mean, scale=index.deviation)


def _new_codec(config: ml_collections.ConfigDict) -> Codec:
    """The configured codec before it knows the data."""
    given = config.codec.to_dict()
    name = given.pop("name", None)
    makers: dict[str, Callable[..., Codec]] = {
        "patches": patches.Patches,
        "learned": _unscaled,
        "codes": _codes,
    }
    maker = paradigms.chosen("codec.name", name, makers)
    wanted = inspect.signature(maker).parameters.keys()
    if given.keys() != wanted:
        raise UserError(
            f"codec.name={name!r} goes with the keys {', '.join(wanted)} of codec, all of them; "
            f"missing: {', '.join(sorted(wanted - given.keys())) or 'none'}; unknown: "
            f"{', '.join(sorted(given.keys() - wanted)) or 'none'}."
        )
    return maker(**given)


def _unscaled(path: str, pixels: int, patch: int, deviation: float) -> Learned:
    """The codec before it knows the data: what does not fit is told before latents are made."""
    autoencoder = _autoencoder(path)
    channels = autoencoder.shape.channels
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return Learned(autoencoder, pixels, patch, mean=zeros, scale=ones, deviation=deviation)


def _codes(path: str, pixels: int) -> Codes:
    return Codes(_autoencoder(path), pixels)


def _autoencoder(path: str) -> Autoencoder:
    folder = storage.located(path, "codec.path")
    if not folder.exists():
        raise UserError(
            f"codec.path={path}: there is no such folder. Train an autoencoder, with "
            "--config=configs/codec.py:kl or :vq, or give the folder of one that you have, with "
            "its config.json and .safetensors file."
        )
    return Autoencoder.load(folder)


def _kept(
    config: ml_collections.ConfigDict, folder: epath.Path, codec: Learned | Codes
) -> latents.Index:
    """What the run has kept of its codec, held against the codec that is there."""
    kept = folder / workdir.LATENTS
    stored = _latents(config, codec)
    known = kept.exists()
    distributed.meet()  # Nobody makes what another has yet to look for.
    if not known:
        workdir.write_atomically(kept, stored.index().to_json())
        distributed.meet()
    return latents.read_index(kept, stored.autoencoder.fingerprint)


def _latents(config: ml_collections.ConfigDict, codec: Learned | Codes) -> encode_latents.Latents:
    autoencoder = AsCodes(codec.autoencoder) if codec.codes else codec.autoencoder
    return encode_latents.Latents(
        folder=epath.Path(config.data.dir)
        / "latents"
        / f"{_name_of_source(config)}_{autoencoder.fingerprint}",
        autoencoder=autoencoder,
        splits={split: functools.partial(source, config, split) for split in ENCODED},
        pixels=config.codec.pixels,
    )


def _name_of_source(config: ml_collections.ConfigDict) -> str:
    """For folders and files: another one for other settings."""
    given = config.source.to_dict()
    return f"{given['name']}_{splits.bucket(repr(sorted(given.items())), 16**8):08x}"


def _vocab(config: ml_collections.ConfigDict, folder: epath.Path, codes: int) -> vocabs.Vocab:
    """The run's vocabulary: learned from its training text at the first call, or taken over."""
    path = folder / workdir.TOKENIZER
    given = epath.Path(config.start) / workdir.TOKENIZER
    if not path.exists() and config.start and given.exists():
        workdir.write_atomically(path, given.read_bytes())
    if not path.exists():
        documents = source(config, "train")
        count = min(len(documents), VOCAB_DOCUMENTS)
        words = (documents[i].words() for i in range(count))
        vocab = vocabs.train_vocab(words, config.data.vocab, config.data.coverage)
        workdir.write_atomically(path, vocab.model)
    return vocabs.Vocab.load(path, codes)
