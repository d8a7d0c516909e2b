"""Shape of a pretrained language model, read from Hugging Face's `config.json`.

Everything that this project's network does not compute is refused: a folder that is read gives the
logits that `transformers` computes.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import gemma_config
from oneflow_jax.pretrained.config_reader import ConfigReader

CONFIG_FILE = "config.json"


SUPPORTED_VALUES = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
"""Keys of Llama and Qwen with their only supported value, which is also that of a missing key."""


def _read_llama(values: ConfigReader) -> dict[str, Any]:
    """Return the fields of `LanguageModelConfig` that Gemma reads otherwise."""
    values.check_values(SUPPORTED_VALUES)
    layer_types = set(values.strings("layer_types", [])) - {"full_attention"}
    if layer_types:
        raise UserError(
            f"{values.label}: layer_types has {sorted(layer_types)}: not supported. Use a model "
            "all of whose layers have full attention."
        )
    theta, scaling = values.rope()
    return {"rope_theta": theta, "rope_scaling": scaling}


@dataclasses.dataclass(frozen=True)
class Family:
    """What the architectures of one family have in common.

    Attributes:
        qk_norm: whether queries and keys are normalized.
        qkv_bias: whether the projections of queries, keys and values have a bias.
        needs_head_dim: whether `head_dim` must be given; otherwise its default is a quotient.
        tied_embeddings: whether the head is tied to the embeddings if no key says so.
        read_rest: function that checks the other keys and returns the other fields of
            `LanguageModelConfig`.
    """

    qk_norm: bool = False
    qkv_bias: bool = False
    needs_head_dim: bool = True
    tied_embeddings: bool = False
    read_rest: Callable[[ConfigReader], dict[str, Any]] = _read_llama


FAMILIES = {
    "LlamaForCausalLM": Family(needs_head_dim=False),
    "Qwen2ForCausalLM": Family(needs_head_dim=False, qkv_bias=True),
    "Qwen3ForCausalLM": Family(qk_norm=True),
    "Gemma2ForCausalLM": Family(tied_embeddings=True, read_rest=gemma_config.read_gemma2),
    "Gemma3ForCausalLM": Family(
        qk_norm=True, tied_embeddings=True, read_rest=gemma_config.read_gemma3
    ),
}
"""Supported architectures: Llama 1 to 3.x and SmolLM2, Qwen2 and 2.5, Qwen3, Gemma 2, and the text
models of Gemma 3."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """Shape of a language model; the fields are named as the keys `model.*`, where these exist.

    Attributes:
        layers, width, heads, kv_heads, head_width, hidden: N, D, H, K, A, F of `shapes`.
        qk_norm, qkv_bias, norm_eps: as in `nn.attention.Attention`.
        tied_embeddings: whether the output head has the token embeddings as its weights.
        rope_theta, rope_scaling, rope_local_theta, post_norms, activation, score_cap,
            sliding_window, global_every: as in `nn.backbone.TransformerConfig`.
        embed_scale, logit_cap: as in `nn.model.Model`.
        vocab_size: number of rows of the token embeddings.
        max_length: number of tokens of the longest text of the pretraining.
        bos_id: token that begins a document; that of `eos_id` if the model has none.
        eos_id: token that ends a document.
        norm_offset: number that is added to the stored scales of norms.
        query_scale: factor of stored queries, so that scores are those of the model if they are
            divided by the square root of the width of a head.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    qk_norm: bool
    qkv_bias: bool
    norm_eps: float
    tied_embeddings: bool
    vocab_size: int
    max_length: int
    bos_id: int
    eos_id: int
    rope_theta: float
    rope_scaling: tuple[str | float, ...] = ()
    rope_local_theta: float = 10_000.0
    post_norms: bool = False
    activation: str = "silu"
    embed_scale: float = 1.0
    score_cap: float = 0.0
    logit_cap: float = 0.0
    sliding_window: int = 0
    global_every: int = 1
    norm_offset: float = 0.0
    query_scale: float = 1.0

    def model_values(self) -> dict[str, Any]:
        """Return the values of the keys `model.*` that describe this network."""
        values = dataclasses.asdict(self)
        for name in ("vocab_size", "max_length", "bos_id", "eos_id", "norm_offset", "query_scale"):
            del values[name]
        return values | {
            "embed_width": self.width,
            "embed_projection": False,
            "rope_layout": "mrope",
        }


def is_language_model(folder: epath.Path) -> bool:
    """Return whether a folder has a model in Hugging Face's layout, and not a run of this project.

    Raises:
        UserError: its `config.json` is not JSON.
    """
    path = folder / CONFIG_FILE
    return path.exists() and bool({"architectures", "model_type"} & _read_json(path).keys())


def read(folder: epath.Path) -> LanguageModelConfig:
    """Read the shape of the language model in a folder.

    Raises:
        UserError: `config.json` does not exist, is not JSON, or describes an unsupported model. The
            message names the file, the key and its value.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        raise UserError(
            f"{path}: the file does not exist. Give the folder of a language model in Hugging "
            f"Face's layout, with {CONFIG_FILE}, model.safetensors and tokenizer.json."
        )
    return parse(_read_json(path), str(path))


def parse(values: Mapping[str, Any], label: str) -> LanguageModelConfig:
    """Return the shape that the content of a `config.json` describes.

    Args:
        values: the content.
        label: path of the file, for messages.

    Raises:
        UserError: the model is not supported, or a value is missing or has the wrong type.
    """
    read = ConfigReader(values, label)
    family = FAMILIES[read.architecture(FAMILIES)]
    rest = family.read_rest(read)
    heads, width = read.integer("num_attention_heads"), read.integer("hidden_size")
    eos_id = read.token("eos_token_id", None)
    return LanguageModelConfig(
        layers=read.integer("num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=read.integer("num_key_value_heads", heads),
        head_width=read.integer("head_dim", None if family.needs_head_dim else width // heads),
        hidden=read.integer("intermediate_size"),
        qk_norm=family.qk_norm,
        qkv_bias=family.qkv_bias,
        norm_eps=read.number("rms_norm_eps", 1e-6),
        tied_embeddings=read.switch("tie_word_embeddings", default=family.tied_embeddings),
        vocab_size=read.integer("vocab_size"),
        max_length=read.integer("max_position_embeddings", 2_048),
        bos_id=read.token("bos_token_id", eos_id),
        eos_id=eos_id,
        **rest,
    )


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}). Download it again.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object. Download it again.")
    return values
