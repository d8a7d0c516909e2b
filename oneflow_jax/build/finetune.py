"""Fine-tuning: what a run takes from its start model (`config.init_from`), and what it adds.

The configuration of such a run has a section `finetune` (configs/finetune.py). The run takes codec,
network and paradigm from its start model. It keeps the tokens of the start model with their ids,
and adds tokens for characters and frequent words of its own documents.
"""

import hashlib
import json
import logging
from collections.abc import Iterable
from typing import Any

import ml_collections
from etils import epath

from oneflow_jax.build import tokenizers
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data import vocab_extension
from oneflow_jax.errors import UserError
from oneflow_jax.nn import lora
from oneflow_jax.runtime import distributed, storage, workdir
from oneflow_jax.training import step, vocab_rows

MAX_NAMED = 20
"""Maximum number of added tokens that the log and the record name."""


def is_finetuning(config: ml_collections.ConfigDict) -> bool:
    """Return whether the run fine-tunes a start model."""
    return "finetune" in config


def keeps_data(config: ml_collections.ConfigDict) -> bool:
    """Return whether the run also trains on documents of its start model."""
    return is_finetuning(config) and config.finetune.keep_fraction > 0


def start_data_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Return the configuration of the run with the data set of its start model."""
    other = drop_section(config)
    with other.unlocked():
        other.source = config.finetune["start_source"].copy_and_resolve_references()
    return other


def start_folder(config: ml_collections.ConfigDict) -> epath.Path:
    """Return the folder of the start model."""
    return storage.resolve_path(config.init_from, "init_from")


def load_start_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Load the configuration of the start model.

    Raises:
        UserError: the start model does not exist any more.
    """
    return workdir.load_config(start_folder(config), field="init_from")


def load_start_vocab(config: ml_collections.ConfigDict, num_codes: int) -> vocabs.TextVocab:
    """Load the vocabulary of the start model.

    Raises:
        UserError: the start model has no tokenizer.
    """
    return tokenizers.load(start_folder(config), num_codes)


def extend_vocab(
    config: ml_collections.ConfigDict, folder: epath.Path, texts: Iterable[str], num_codes: int
) -> vocabs.TextVocab:
    """Extend the start model's vocabulary by tokens for `texts`, and write the run's record.

    Args:
        config: the run's configuration.
        folder: the run's folder, which gets the record.
        texts: texts of the run's training documents.
        num_codes: number of codes of the image tokenizer; 0 without one.
    """
    start = load_start_vocab(config, num_codes)
    limits = vocab_extension.Limits(
        max_tokens=config.finetune.max_added_tokens,
        min_word_count=config.finetune.min_word_count,
        character_coverage=config.data.character_coverage,
    )
    vocab = vocab_extension.extend(start, texts, limits)
    added = vocab_extension.list_added(start, vocab)
    record = {
        "start": config.init_from,
        "fingerprint": _fingerprint(start_folder(config)),
        "start_text_stop": start.text.stop,
        "added_tokens": len(added),
        "added": added[:MAX_NAMED],
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    workdir.write_atomically(folder / workdir.FINETUNE, text)
    return vocab


def check_start(
    config: ml_collections.ConfigDict, folder: epath.Path, *, accept_changes: bool = False
) -> None:
    """Check that the start model is the one with which the run in `folder` began.

    Before the first checkpoint, files that were derived from another start model are deleted. After
    the first checkpoint, the start model is no longer needed, but another one is an error unless
    `accept_changes` is True.

    Raises:
        UserError: the run began with another start model.
    """
    record = read_record(folder)
    start = start_folder(config)
    if not record or not (start / workdir.CONFIG).exists():
        return
    if record["fingerprint"] == _fingerprint(start):
        return
    if not workdir.has_checkpoints(folder):
        if distributed.is_primary():
            workdir.delete_derived(folder)
        return
    message = (
        f"init_from={start}: the run in --workdir={folder} began with another start model, from "
        f"{record['start']}."
    )
    if not accept_changes:
        raise UserError(
            f"{message} Choose another --workdir, or give --accept_changed_data to continue the "
            "run from its own checkpoint."
        )
    logging.warning("%s", message)


def read_record(folder: epath.Path) -> dict[str, Any]:
    """Return what the run's folder records about its start model; {} if it has no record.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / workdir.FINETUNE
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise UserError(
            f"{path}: the file is damaged ({error}). Get a copy of it from a backup."
        ) from error


def make_adapter(
    config: ml_collections.ConfigDict, folder: epath.Path, vocab: vocabs.TextVocab
) -> lora.LoRA:
    """Return the adapter of the run in `folder`: LoRA's factors, or none."""
    if not is_finetuning(config) or not config.finetune.lora_rank:
        return step.FULL
    first = read_record(folder).get("start_text_stop", vocab.text.stop)
    return lora.LoRA(config.finetune.lora_rank, range(first, vocab.text.stop))


def check_merged(start: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Check that a start model has no separate factors of LoRA.

    Args:
        start: configuration of the start model.
        folder: folder of the start model, for the message.

    Raises:
        UserError: it has.
    """
    if is_finetuning(start) and start.finetune.lora_rank:
        raise UserError(
            f"init_from={folder}: this run was trained with LoRA. Export it with oneflow export "
            f"--workdir={folder} --output=FOLDER, and initialize from FOLDER."
        )


def drop_section(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Return the configuration of an export, which loads like that of any other model."""
    exported = config.copy_and_resolve_references()
    if is_finetuning(exported):
        with exported.unlocked():
            del exported.finetune
    return exported


def plan_rows(
    config: ml_collections.ConfigDict, start: vocabs.TextVocab, vocab: vocabs.TextVocab
) -> vocab_rows.RowPlan:
    """Plan how the rows of the start model's vocabulary become those of the run's vocabulary.

    Raises:
        UserError: `vocab` does not extend `start`.
    """
    return vocab_rows.plan_rows(
        vocab_extension.split_added(start, vocab),
        num_text=start.text.stop,
        num_codes=start.code_count,
        old_size=start.padded_size(),
        size=vocab.padded_size(),
        seed=config.seed,
    )


def log_summary(
    config: ml_collections.ConfigDict,
    vocab: vocabs.TextVocab,
    counts: tuple[int, int],
    num_documents: int,
    lengths: str,
) -> None:
    """Log what the run takes from its start model, what it adds, and what it trains.

    Args:
        config: the run's configuration.
        vocab: the extended vocabulary.
        counts: number of trained parameters, and of all parameters.
        num_documents: number of training documents.
        lengths: lines about the lengths of texts and rows (`row_lengths.describe`).
    """
    start = load_start_vocab(config, vocab.code_count)
    added = vocab_extension.list_added(start, vocab)
    names = ", ".join(added[:MAX_NAMED]) + ", ..." * (len(added) > MAX_NAMED)
    rank, kept = config.finetune.lora_rank, config.finetune.keep_fraction
    logging.info(
        "Fine-tuning:\n"
        "  start model  %s (%s, %d layers of width %d)\n"
        "  tokens       %d kept, %d added%s\n"
        "  parameters   %s of %s trained%s\n"
        "  documents    %s%s\n"
        "%s\n"
        "  steps        %s of %d rows",
        config.init_from, config.paradigm.name, config.model.layers, config.model.width,
        len(start.text), len(added), f": {names}" if names else "",
        f"{counts[0]:,}", f"{counts[1]:,}", f", with LoRA of rank {rank}" if rank else "",
        f"{num_documents:,}", f", and {kept:.0%} of the start model" if kept else "",
        lengths,
        f"{config.steps:,}", config.batch_size,
    )  # fmt: skip


def _fingerprint(folder: epath.Path) -> str:
    """Return a hash of a start model: its files and, for a run, the step of its newest checkpoint.

    A run that trains on is another start model than before.
    """
    digest = hashlib.sha256()
    for name in (workdir.CONFIG, *tokenizers.LOADERS, workdir.WEIGHTS):
        if (folder / name).exists():
            digest.update((folder / name).read_bytes())
    checkpoints = folder / workdir.CHECKPOINTS
    if checkpoints.exists():
        steps = [int(path.name) for path in checkpoints.iterdir() if path.name.isdigit()]
        digest.update(str(max(steps, default=0)).encode())
    return digest.hexdigest()
