"""Builders of documents, tokenizer, codec and latents from a configuration."""

import dataclasses
import functools
import io
from collections.abc import Callable, Iterator

import ml_collections
import numpy as np
from etils import epath

from oneflow_jax.build import (
    custom_data,
    finetune,
    image_codec,
    paradigms,
    stale_data,
    tokenizers,
)
from oneflow_jax.codecs import patches
from oneflow_jax.codecs.autoencoder.codec import LatentCodec, TokenEncoder, VQCodec
from oneflow_jax.codecs.base import Codec
from oneflow_jax.data import (
    encode_latents,
    image_shapes,
    known_layouts,
    latents,
    mixed_source,
    overflow,
    sources,
    splits,
)
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.custom import prepare, sample
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, plurals, storage, workdir

ENCODED_SPLITS = ("train", "heldout")
"""Splits for training and for held-out losses; an autoencoder codec stores them as latents."""

READING_MODES = ("train", "prepare", "evaluate")
"""Modes that read documents. The other modes need only the folder of the run."""

LAYOUT_DOCUMENTS = 2_000
"""Maximum number of training documents whose layouts are counted."""

TOKENIZER_TRAINING_DOCUMENTS = 20_000
"""Maximum number of documents that the tokenizer is trained on."""


def open_split(config: ml_collections.ConfigDict, split: str) -> sources.Source:
    """Return the documents of one split of the data set; prepare the data set if necessary."""
    if custom_data.is_custom(config):
        return prepare.open_folder(custom_data.open_prepared(config).folder, split)
    return sources.open_dataset(data_dir=config.data.dir, split=split, **config.source)


def make_layout(
    config: ml_collections.ConfigDict,
    folder: epath.Path,
    mode: str = "train",
    *,
    accept_changed_data: bool = False,
) -> layouts.Layout:
    """Build the layout, which converts documents to slots.

    The tokenizer and, for an autoencoder codec, the statistics of the latents are stored in the
    run's folder. The first call creates these files and prepares the data.

    Args:
        config: the run's configuration.
        folder: the run's folder.
        mode: mode of the command line; only the modes in `READING_MODES` read the user's own data.
        accept_changed_data: whether a run that was trained on other data may continue.

    Raises:
        UserError: a value of the configuration is invalid, or the run was trained with another
            codec or on other data.
    """
    if mode in READING_MODES:
        custom_data.update(config, folder, mode, accept_changes=accept_changed_data)
    has_inputs = _has_saved_inputs(config, folder)
    distributed.barrier()  # All processes check for the files before any process writes them.
    if not has_inputs:
        with distributed.primary_first():
            open_split(config, "train")
    if mode in ("train", "prepare") and finetune.keeps_data(config):
        _check_start_data(config)
    codec = _load_codec(config, folder)
    with distributed.primary_first():
        vocab = _load_or_train_vocab(config, folder, codec.num_codes)
    return _build_layout(config, vocab, codec)


def load_known_layouts(
    config: ml_collections.ConfigDict, folder: epath.Path, layout: layouts.Layout, mode: str
) -> known_layouts.KnownLayouts | None:
    """Return the layouts of the training documents, for models that do not choose the layout.

    The modes that read documents count them if the run's folder does not have them, and the modes
    "train" and "prepare" then write them to it. The result is None in other modes without the file,
    or if the model chooses the layout.
    """
    if layout.variable_length:
        return None
    path = folder / workdir.LAYOUTS
    with distributed.primary_first():
        if path.exists():
            return known_layouts.KnownLayouts.from_json(path.read_text())
        if mode not in READING_MODES:
            return None
        outlines = overflow.iter_outlines(open_split(config, "train"), LAYOUT_DOCUMENTS)
        found = known_layouts.count(outlines, layout)
        if mode != "evaluate":
            workdir.write_atomically(path, found.to_json(), primary_only=False)
        return found


def _check_start_data(config: ml_collections.ConfigDict) -> None:
    """Prepare the documents of the start model, or refuse to go on without them."""
    try:
        with distributed.primary_first():
            open_split(finetune.start_data_config(config), "train")
    except (UserError, ImportError) as error:
        raise UserError(
            f"finetune.keep_fraction={config.finetune.keep_fraction}: the documents of the start "
            f"model cannot be prepared. {error} Or set finetune.keep_fraction=0, to train on your "
            "documents alone."
        ) from error


def _has_saved_inputs(config: ml_collections.ConfigDict, folder: epath.Path) -> bool:
    """Return whether the layout can be built from the run's folder alone, without the data."""
    has_codec = config.codec.get("name") == "patches" or (folder / workdir.LATENTS).exists()
    return has_codec and tokenizers.find(folder) is not None


def abstract_layout(config: ml_collections.ConfigDict) -> layouts.Layout:
    """Return a layout that has all sizes, but no data, tokenizer or statistics of latents.

    This layout cannot encode text or decode images. The vocabulary has its maximum size.

    Raises:
        UserError: a value of the configuration is invalid.
    """
    codec = image_codec.make_without_stats(config)
    text = range(len(vocabs.SPECIALS), config.data.vocab_size)
    return _build_layout(config, vocabs.AbstractVocab(text, codec.num_codes), codec)


def _build_layout(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> layouts.Layout:
    ratios = image_codec.get_aspect_ratios(config)
    if ratios != (image_shapes.SQUARE,) and not custom_data.is_custom(config):
        raise UserError(
            f"data.aspect_ratios={ratios!r}: the images of source.name={config.source.name!r} are "
            "square. Leave out all ratios but '1:1', or train on your own data (--config=own)."
        )
    return layouts.Layout(
        vocab=vocab,
        codec=codec,
        length=config.data.sequence_length,
        text_slots=config.data.text_slot_multiple,
        has_markers=config.paradigm.name in paradigms.AUTOREGRESSIVE,
        images_last=config.paradigm.name in paradigms.IMAGES_LAST,
        aspect_ratios=ratios,
    )


def prepare_data(config: ml_collections.ConfigDict, layout: layouts.Layout) -> str:
    """Prepare missing data and return a one-line summary of all prepared data."""
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
        counts, where = stored.build_index().documents, stored.folder
    summary = ", ".join(
        f"{plurals.format_count(count, 'document')} of {split!r}" for split, count in counts.items()
    )
    return f"Prepared: {summary}, in {where}"


def open_pipeline_split(
    config: ml_collections.ConfigDict, layout: layouts.Layout, split: str
) -> sources.Source:
    """Return the documents of a split as the input pipeline reads them.

    With an autoencoder codec the documents contain latents. The key `data.overflow` decides whether
    documents that are too long are split or dropped. If its value is "error", the pipeline raises
    an error when it reads such a document. A run that fine-tunes also reads documents of its start
    model, as the fraction `finetune.keep_fraction` of its training documents.
    """
    own = _open_own_split(config, layout, split)
    if split != "train" or not finetune.keeps_data(config):
        return own
    start = _open_own_split(finetune.start_data_config(config), layout, split)
    return mixed_source.MixedSource(own, start, config.finetune.keep_fraction)


def _open_own_split(
    config: ml_collections.ConfigDict, layout: layouts.Layout, split: str
) -> sources.Source:
    codec = layout.codec
    if isinstance(codec, patches.PatchCodec):
        source = open_split(config, split)
    else:
        source = _latent_dataset(config, codec).open_split(split)
    if not _filters_length(config):
        return source
    return overflow.ChunkedSource(source, layout, chunk_counts(config, layout, split))


def chunk_counts(
    config: ml_collections.ConfigDict,
    layout: layouts.Layout,
    split: str,
    count: Callable[..., np.ndarray] = overflow.count_chunks,
) -> np.ndarray:
    """Return, for each document of a split, the number of chunks that it is split into.

    A chunk fits a row; a document with 0 chunks is dropped. The numbers depend on `data.overflow`.
    They are computed once and stored in `data.dir`.

    Args:
        config: the run's configuration.
        layout: layout of the run.
        split: name of the split.
        count: function that counts, with the arguments of `overflow.count_chunks`.

    Raises:
        UserError: no document fits the sequence length.
    """
    source = custom_data.source_id(config)
    key = (
        source, split, config.data.overflow, layout.length, layout.text_slots,
        layout.has_markers, layout.images_last, layout.codec.grid, layout.vocab.model,
        *layout.shapes.crop_sizes,
    )  # fmt: skip
    key_hash = splits.hash_bucket(repr(key), 16**8)
    path = (
        epath.Path(config.data.dir) / stale_data.CHUNK_COUNTS_DIR / f"{source}_{key_hash:08x}.npy"
    )
    with distributed.primary_first():
        if not path.exists():
            counts = count(open_split(config, split), layout, config.data.overflow)
            path.parent.mkdir(parents=True, exist_ok=True)
            file = io.BytesIO()
            np.save(file, counts)
            workdir.write_atomically(path, file.getvalue(), primary_only=False)
    counts = np.load(io.BytesIO(path.read_bytes()))
    if not counts.any():
        raise UserError(
            f"data.sequence_length={layout.length}: no document of {split!r} fits with "
            f"data.overflow={config.data.overflow!r}. Increase data.sequence_length, or set "
            "data.overflow='split'."
        )
    return counts


def _filters_length(config: ml_collections.ConfigDict) -> bool:
    return custom_data.is_custom(config) or config.data.overflow != "error"


def _load_codec(config: ml_collections.ConfigDict, folder: epath.Path) -> Codec:
    """Build the configured codec, with the statistics of latents from the run's folder."""
    with distributed.share_errors():
        codec = image_codec.make_without_stats(config)
    if isinstance(codec, patches.PatchCodec):
        return codec
    index = _load_latent_index(config, folder, codec)
    if isinstance(codec, VQCodec) or not index.mean:  # The documents may have no images.
        return codec
    return dataclasses.replace(codec, mean=index.mean, std=index.deviation)


def _load_latent_index(
    config: ml_collections.ConfigDict, folder: epath.Path, codec: LatentCodec | VQCodec
) -> latents.LatentIndex:
    """Load the statistics of latents from the run's folder; the first call creates the file.

    The file also has the fingerprint of the autoencoder that made the latents. The codec must have
    the same autoencoder.
    """
    path = folder / workdir.LATENTS
    stored = _latent_dataset(config, codec)
    exists = path.exists()
    distributed.barrier()  # All processes check for the file before any process writes it.
    if not exists:
        index = _inherit_stats(config, stored.build_index())
        workdir.write_atomically(path, index.to_json())
        distributed.barrier()
    with distributed.share_errors():
        return latents.read_index(path, stored.autoencoder.fingerprint)


def _inherit_stats(
    config: ml_collections.ConfigDict, index: latents.LatentIndex
) -> latents.LatentIndex:
    """Return the index with the mean and std of the start model's latents, if there is one.

    The start model's parameters are trained on latents that are normalized in this way.
    """
    if not config.init_from:
        return index
    path = storage.resolve_path(config.init_from, "init_from") / workdir.LATENTS
    if not path.exists():
        return index
    start = latents.read_index(path, index.fingerprint)
    return dataclasses.replace(index, mean=start.mean, deviation=start.deviation)


def _latent_dataset(
    config: ml_collections.ConfigDict, codec: LatentCodec | VQCodec
) -> encode_latents.LatentDataset:
    autoencoder = TokenEncoder(codec.autoencoder) if codec.num_codes else codec.autoencoder
    return encode_latents.LatentDataset(
        folder=epath.Path(config.data.dir)
        / stale_data.LATENTS_DIR
        / f"{custom_data.source_id(config)}_{autoencoder.fingerprint}",
        autoencoder=autoencoder,
        splits={split: functools.partial(open_split, config, split) for split in ENCODED_SPLITS},
        pixels=config.codec.pixels,
        crop_sizes=image_codec.compute_crop_sizes(config),
    )


def _load_or_train_vocab(
    config: ml_collections.ConfigDict, folder: epath.Path, num_codes: int
) -> vocabs.TextVocab:
    """Load the run's vocabulary.

    The first call copies the tokenizer of the model in `config.init_from`, or extends this
    tokenizer if the run fine-tunes. Without such a tokenizer, it trains one on the training split.
    """
    if not tokenizers.find(folder) and finetune.is_finetuning(config):
        vocab = finetune.extend_vocab(config, folder, _iter_texts(config), num_codes)
        tokenizers.save(vocab, folder)
    if not tokenizers.find(folder) and config.init_from:
        start = storage.expand_user(config.init_from, "init_from")
        tokenizers.copy(epath.Path(start), folder)
    if not tokenizers.find(folder):
        vocab = vocabs.train_sentencepiece(
            _iter_texts(config), config.data.vocab_size, config.data.character_coverage
        )
        tokenizers.save(vocab, folder)
    return tokenizers.load(folder, num_codes)


def _iter_texts(config: ml_collections.ConfigDict) -> Iterator[str]:
    """Yield the texts of training documents for the tokenizer, from all parts of the split.

    The first documents alone would be those of the first files, perhaps all in one language.
    """
    source = open_split(config, "train")
    if not custom_data.is_custom(config):
        chosen = overflow.iter_outlines(source, TOKENIZER_TRAINING_DOCUMENTS)
        return (document.text() for document in chosen)
    plan = custom_data.open_prepared(config).plan
    indices = sample.choose_documents(plan, source.files, TOKENIZER_TRAINING_DOCUMENTS)
    return (source.outline(index).text() for index in indices)
