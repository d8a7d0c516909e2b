"""Trains a language model on your documents, or adds images to it (docs/language_models.md).

    oneflow import MODEL --output=runs/smollm2
    oneflow train --config=language_model:START --config.source.path=DOCUMENTS
    oneflow train --config=language_model:START,lmfusion --config.source.path=DOCUMENTS

START is the folder of a language model in Hugging Face's layout, with config.json,
model.safetensors and tokenizer.json; or the folder of a run or of an export of the paradigm
`language`, such as that of `oneflow import`. The run has the network and the tokenizer of START.
With `lmfusion`, an image tower is added, and the text tower is frozen.
"""

import ml_collections
from etils import epath

from oneflow_jax.configs import own
from oneflow_jax.data import vocab
from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import language_config
from oneflow_jax.runtime import storage, workdir

MAX_LENGTH = 512
"""Maximum number of slots of a row; the row of a model for shorter texts is shorter."""


def get_config(start: str = "") -> ml_collections.ConfigDict:
    """Return the configuration; `start` is a folder, or a folder, a comma and "lmfusion"."""
    path, _, paradigm = start.partition(",")
    if not path or paradigm not in ("", "language", "lmfusion"):
        raise UserError(
            f"--config=language_model:{start}: it needs the folder of a language model. Write "
            "--config=language_model:FOLDER, or --config=language_model:FOLDER,lmfusion."
        )
    folder = storage.resolve_path(path, "--config=language_model")
    config = own.get_config(paradigm or "language")
    config.name = f"{folder.name}-lmfusion" if paradigm == "lmfusion" else folder.name
    config.init_from = str(folder)
    if language_config.is_language_model(folder):
        _copy_pretrained(config, folder)
    else:
        saved = workdir.load_config(folder, field="--config=language_model")
        for section in ("codec", "model"):
            config[section] = saved[section]
        config.source.pixels = config.codec.get_ref("pixels")
        config.data.sequence_length = saved.data.sequence_length
        config.data.vocab_size = saved.data.vocab_size
    config.choose = (
        *("source.heldout_fraction", "batch_size", "steps", "optimizer.warmup_steps"),
        *("evaluation.every", "checkpoint.every"),
    )
    config.optimizer.learning_rate = 3e-4 if paradigm == "lmfusion" else 5e-5
    if paradigm != "lmfusion":
        config.evaluation.suite = ""
        config.evaluation.loss_documents = 0
        config.sampling.prompts = ("Once upon a time <text>",)
    return config


def _copy_pretrained(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Set the keys that describe a model in Hugging Face's layout."""
    shape = language_config.read(folder)
    config.model.update(shape.model_values())
    config.model.scan_unroll = shape.layers
    config.data.sequence_length = min(shape.max_length, MAX_LENGTH)
    config.data.vocab_size = shape.vocab_size + len(vocab.SPECIALS)
