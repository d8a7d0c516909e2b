"""Shape of a pretrained language model, read from Hugging Face's `config.json`.

Everything that this project's network does not compute is refused: a folder that is read gives the
logits that `transformers` computes.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from oneflow_jax.errors import UserError

CONFIG_FILE = "config.json"


@dataclasses.dataclass(frozen=True)
class Family:
    """What the architectures of one family have in common.

    Attributes:
        qk_norm: whether queries and keys are normalized.
        qkv_bias: whether the projections of queries, keys and values have a bias.
    """

    qk_norm: bool = False
    qkv_bias: bool = False


FAMILIES = {
    "LlamaForCausalLM": Family(),
    "Qwen2ForCausalLM": Family(qkv_bias=True),
    "Qwen3ForCausalLM": Family(qk_norm=True),
}
"""Supported architectures: Llama 1 to 3.x and SmolLM2, Qwen2 and 2.5, Qwen3."""

ROPE_NUMBERS = {
    "default": (),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}
"""Supported types of rotary embeddings, with the keys of their numbers."""

SUPPORTED_VALUES = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
"""Keys with their only supported value, which is also the value of a missing key."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """Shape of a language model; the fields are named as the keys `model.*`, where these exist.

    Attributes:
        layers, width, heads, kv_heads, head_width, hidden: N, D, H, K, A, F of `shapes`.
        qk_norm, qkv_bias, norm_eps: as in `nn.attention.Attention`.
        rope_theta, rope_scaling: as in `nn.rope.Rope`.
        tied_embeddings: whether the output head has the token embeddings as its weights.
        vocab_size: number of rows of the token embeddings.
        max_length: number of tokens of the longest text of the pretraining.
        bos_id: token that begins a document; that of `eos_id` if the model has none.
        eos_id: token that ends a document.
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
    rope_theta: float
    rope_scaling: tuple[str | float, ...]
    tied_embeddings: bool
    vocab_size: int
    max_length: int
    bos_id: int
    eos_id: int

    def model_values(self) -> dict[str, Any]:
        """Return the values of the keys `model.*` that describe this network."""
        values = dataclasses.asdict(self)
        for name in ("vocab_size", "max_length", "bos_id", "eos_id"):
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
    values = {key: value for key, value in values.items() if value is not None}
    read = _Reader(values, label)
    family = read.family()
    read.check_supported()
    heads, width = read.integer("num_attention_heads"), read.integer("hidden_size")
    # Only Llama and Qwen2 define the width of a head as a quotient.
    head_width = read.integer("head_dim", None if family.qk_norm else width // heads)
    eos_id = read.token("eos_token_id", None)
    theta, scaling = read.rope()
    return LanguageModelConfig(
        layers=read.integer("num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=read.integer("num_key_value_heads", heads),
        head_width=head_width,
        hidden=read.integer("intermediate_size"),
        qk_norm=family.qk_norm,
        qkv_bias=family.qkv_bias,
        norm_eps=read.number("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        tied_embeddings=bool(values.get("tie_word_embeddings", False)),
        vocab_size=read.integer("vocab_size"),
        max_length=read.integer("max_position_embeddings", 2_048),
        bos_id=read.token("bos_token_id", eos_id),
        eos_id=eos_id,
    )


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reader of the values of a `config.json`, whose messages name the file."""

    values: Mapping[str, Any]
    label: str

    def family(self) -> Family:
        names = self.values.get("architectures", [])
        if not isinstance(names, list) or len(names) != 1 or names[0] not in FAMILIES:
            raise UserError(
                f"{self.label}: architectures={names!r}: not supported. Use a model of one of "
                f"{', '.join(FAMILIES)}."
            )
        return FAMILIES[names[0]]

    def check_supported(self) -> None:
        for key, supported in SUPPORTED_VALUES.items():
            value = self.values.get(key, supported)
            if value != supported:
                raise UserError(
                    f"{self.label}: {key}={value!r}: not supported. Use a model with {supported!r}."
                )
        layer_types = set(self.values.get("layer_types", ())) - {"full_attention"}
        if layer_types:
            raise UserError(
                f"{self.label}: layer_types has {sorted(layer_types)}: not supported. Use a model "
                "all of whose layers have full attention."
            )

    def rope(self) -> tuple[float, tuple[str | float, ...]]:
        """Return theta and the scaling, from the keys of transformers 5 or of earlier versions."""
        section = "rope_parameters" if "rope_parameters" in self.values else "rope_scaling"
        found = self.values.get(section, {})
        if not isinstance(found, dict):
            raise UserError(f"{self.label}: {section}={found!r}: not an object. Correct the file.")
        inner = _Reader(found, f"{self.label}: {section}")
        kind = found.get("rope_type", found.get("type", "default"))
        if kind not in ROPE_NUMBERS:
            raise UserError(
                f"{inner.label}.rope_type={kind!r}: not supported. Use a model with one of "
                f"{', '.join(ROPE_NUMBERS)}."
            )
        if found.get("partial_rotary_factor", 1.0) != 1.0:
            raise UserError(
                f"{inner.label}.partial_rotary_factor={found['partial_rotary_factor']!r}: not "
                "supported. Use a model that rotates whole heads."
            )
        theta = (inner if "rope_theta" in found else self).number("rope_theta", 10_000.0)
        numbers = tuple(inner.number(key) for key in ROPE_NUMBERS[kind])
        return theta, (kind, *numbers) if numbers else ()

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(
                f"{self.label}: {key}={value!r}: not an integer above 0. Download the file again."
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise UserError(
                f"{self.label}: {key}={value!r}: not a number above 0. Download the file again."
            )
        return float(value)

    def token(self, key: str, default: int | None) -> int:
        """Return a token id; if the file has a list, the first one."""
        value = self.values.get(key, default)
        value = value[0] if isinstance(value, list) and value else value
        if not isinstance(value, int) or not 0 <= value < self.integer("vocab_size"):
            raise UserError(
                f"{self.label}: {key}={value!r}: not a token id. Download the file again."
            )
        return value


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}). Download it again.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object. Download it again.")
    return values
