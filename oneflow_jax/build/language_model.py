"""Initialization from a pretrained language model in Hugging Face's layout: `config.init_from`.

The layers of `language`, which are the text tower of `lmfusion`, get the parameters of the language
model. Each of our token ids has a row of the model's embeddings: text tokens
their own, BOS and END those of the tokens that begin and end a document, and all others, such as
IMAGE, the mean of all rows of text tokens.
"""

import jax
import ml_collections
import numpy as np
from etils import epath
from flax import traverse_util

from oneflow_jax.build import paradigms
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.pretrained_vocab import PretrainedVocab
from oneflow_jax.errors import UserError
from oneflow_jax.nn import backbone
from oneflow_jax.pretrained import language_config, language_weights
from oneflow_jax.pretrained.language_config import LanguageModelConfig
from oneflow_jax.shapes import Float, PyTree

LAYERS = f"backbone/{backbone.STACK}"
HEAD = "outputs_token_logits"
"""Names of parameters of `nn.two_tower.TextModel`."""


def validate(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Check that a run can start from the language model in `folder`.

    Raises:
        UserError: the model is not supported, or the paradigm or the network of the run differs.
    """
    if config.paradigm.name not in paradigms.TEXT_PRETRAINING:
        raise UserError(
            f"paradigm.name={config.paradigm.name!r}: init_from={folder} is a language model, from "
            f"which only {' and '.join(paradigms.TEXT_PRETRAINING)} can start. Use one of them."
        )
    for name, value in language_config.read(folder).model_values().items():
        if config.model[name] != value:
            raise UserError(
                f"model.{name}={config.model[name]!r}: the language model in init_from={folder} "
                f"has {value!r}. Set it to this value, or use --config=language_model:{folder}."
            )


def load_params(params: PyTree, folder: epath.Path, vocab: vocabs.TextVocab) -> PyTree:
    """Return the parameters with those of the language model in `folder`.

    Args:
        params: initial parameters of a `nn.two_tower.TextModel`, with their shardings.
        folder: folder of the language model.
        vocab: the vocabulary of the run.

    Raises:
        UserError: a file of the folder is missing, damaged, or does not fit the others.
    """
    if not isinstance(vocab, PretrainedVocab):
        raise UserError(
            f"init_from={folder}: the run has a tokenizer of its own, but a language model needs "
            "its tokenizer.json. Choose another --workdir."
        )
    config = language_config.read(folder)
    weights = language_weights.read(folder, config)
    flat = traverse_util.flatten_dict(params, sep="/")
    size = flat["rows"].shape[0]
    loaded = {f"{LAYERS}/{name}": value for name, value in weights.block.items()} | {
        "backbone/norm/scale": weights.norm,
        "rows": _arrange_rows(weights.embedding, config, vocab, size),
    }
    if weights.head is not None:
        loaded[f"{HEAD}/kernel"] = _arrange_rows(weights.head, config, vocab, size).T
        loaded[f"{HEAD}/bias"] = np.zeros(size, np.float32)
    for name, value in loaded.items():
        flat[name] = jax.device_put(value.astype(flat[name].dtype), flat[name].sharding)
    return traverse_util.unflatten_dict(flat, sep="/")


def _arrange_rows(
    rows: Float[np.ndarray, "v D"], config: LanguageModelConfig, vocab: PretrainedVocab, size: int
) -> Float[np.ndarray, "V D"]:
    """Return a row for each of our token ids, from the rows of the language model's ids."""
    if vocab.pretrained_ids.max() >= len(rows):
        raise UserError(
            f"vocab_size={len(rows)}: tokenizer.json has ids up to {vocab.pretrained_ids.max()}. "
            "Check that config.json and tokenizer.json belong to one model."
        )
    text = rows[vocab.pretrained_ids]
    arranged = np.tile(text.mean(axis=0), (size, 1))
    arranged[vocab.text.start : vocab.text.stop] = text
    arranged[vocabs.BOS], arranged[vocabs.END] = rows[config.bos_id], rows[config.eos_id]
    return arranged
