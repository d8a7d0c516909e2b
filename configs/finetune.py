"""Fine-tunes a trained model on your own documents of text and images (docs/finetune.md).

    oneflow finetune FOLDER --from=shipped
    python -m oneflow_jax.main --config=configs/finetune.py:START --config.source.path=FOLDER

START is the folder of a run or of an export, or "shipped" for the model of the package. Codec,
network, paradigm and sampler are those of START. Texts and rows have at least the lengths of START,
and longer ones if your documents need them (build/row_lengths.py).
"""

import ml_collections

from oneflow_jax import shipped
from oneflow_jax.configs import own
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import storage, workdir

SECTIONS_OF_START = ("codec", "model", "paradigm", "sampling")
"""Sections of the configuration that are those of the start model."""

MAX_KEPT_DOCUMENTS = 5_000
"""Maximum number of documents of a built-in data set that keep what the start model knows.

A short run reads only a few thousand of them, and preparing all of them may take minutes.
"""


def get_config(start: str = "shipped") -> ml_collections.ConfigDict:
    """Return the configuration; `start` is "shipped", or the folder of a run or of an export."""
    folder = shipped.PRETRAINED if start == "shipped" else storage.resolve_path(start, "--from")
    saved = workdir.load_config(storage.resolve_path(folder, "--from"), field="--from")
    if "paradigm" not in saved:
        raise UserError(
            f"--from={start}: this run trained a codec or compared models. Give the folder of a "
            "run that trained a document model."
        )
    config = own.get_config()
    config.name = "finetune"
    config.init_from = str(folder)
    config.minutes = 10.0  # time to train, if `steps` is chosen
    config.choose = (
        *("source.heldout_fraction", "data.sequence_length", "steps", "optimizer.warmup_steps"),
        *("evaluation.every", "checkpoint.every", "evaluation.num_samples"),
    )

    prompts = config.sampling.prompts
    for name in SECTIONS_OF_START:
        config[name] = saved[name]
    config.sampling.prompts = prompts
    config.source.pixels = config.codec.get_ref("pixels")
    config.data.aspect_ratios = saved.data.aspect_ratios
    config.data.sequence_length = saved.data.sequence_length
    config.data.text_slot_multiple = saved.data.text_slot_multiple
    if config.data.text_slot_multiple:  # Other paradigms do not pad texts.
        config.choose = ("data.text_slot_multiple", *config.choose)

    config.finetune = ml_collections.ConfigDict()
    # Maximum number of tokens to add for characters and words that the tokenizer lacks; 0: none.
    config.finetune.max_added_tokens = 512
    # A word gets a token if it occurs at least this number of times in the training documents.
    config.finetune.min_word_count = 5
    # Fraction of the training documents that come from the data set of the start model, so that the
    # model keeps what it has learned; 0: none.
    config.finetune.keep_fraction = 0.3
    config.finetune.start_source = saved.source  # the data set of the start model
    if "documents" in saved.source:
        documents = min(saved.source.documents, MAX_KEPT_DOCUMENTS)
        config.finetune.start_source.documents = documents
    # Rank of LoRA's factors beside the matrices of the backbone, which are then frozen; 0: all
    # parameters are trained.
    config.finetune.lora_rank = 0
    config.data.character_coverage = 1.0  # fraction of characters with tokens, 0.98 to 1
    # Maximum number of tokens, those of the start model included.
    config.data.vocab_size = config.finetune.get_ref("max_added_tokens") + saved.data.vocab_size

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.freeze = saved.optimizer.freeze
    return config
