"""What Gemma 2 and Gemma 3 have beyond Llama, read from their `config.json`.

Both scale the token embeddings by sqrt(width), have norms before and after attention and the MLP,
and local layers with a sliding window. Scores are divided by sqrt(query_pre_attn_scalar) instead of
the square root of the width of a head, and the scales of norms are stored minus 1.
"""

import math
from typing import Any

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained.config_reader import ConfigReader

LOCAL, GLOBAL = "sliding_attention", "full_attention"
"""Types of layers in `config.json`."""

SUPPORTED_VALUES = {
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "use_bidirectional_attention": False,
    "quantization_config": None,
}
"""Keys with their only supported value, which is also the value of a missing key."""


def read_gemma2(values: ConfigReader) -> dict[str, Any]:
    """Return the fields of `LanguageModelConfig` that Gemma 2 has beyond Llama.

    Raises:
        UserError: the model is not supported, or a value is missing or has the wrong type.
    """
    theta, scaling = values.rope()
    if scaling:
        raise UserError(
            f"{values.label}: rope_type={scaling[0]!r}: not supported in Gemma 2. Use a model with "
            "'default'."
        )
    return _read_both(values, 2) | {
        "score_cap": values.soft_cap("attn_logit_softcapping", 50.0),
        "logit_cap": values.soft_cap("final_logit_softcapping", 30.0),
        "rope_theta": theta,
        "rope_local_theta": theta,
    }


def read_gemma3(values: ConfigReader) -> dict[str, Any]:
    """Return the fields of `LanguageModelConfig` that Gemma 3 has beyond Llama.

    Raises:
        UserError: the model is not supported, or a value is missing or has the wrong type.
    """
    values.check_values({"attn_logit_softcapping": None})  # `transformers` ignores other values.
    theta, scaling, local_theta = _read_two_ropes(values)
    period = values.integer("sliding_window_pattern", 6)
    return _read_both(values, period) | {
        "logit_cap": values.soft_cap("final_logit_softcapping", None),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "rope_local_theta": local_theta,
    }


def _read_both(values: ConfigReader, global_every: int) -> dict[str, Any]:
    """Return the fields that are read alike; `global_every` is used if no layer has a type."""
    values.check_values(SUPPORTED_VALUES)
    scalar = values.number("query_pre_attn_scalar", 256.0)
    return {
        "post_norms": True,
        "activation": "gelu_tanh",
        "embed_scale": math.sqrt(values.integer("hidden_size")),
        "sliding_window": values.integer("sliding_window", 4_096),
        "global_every": _read_global_every(values, global_every),
        "norm_offset": 1.0,
        "query_scale": math.sqrt(values.integer("head_dim") / scalar),
    }


def _read_global_every(values: ConfigReader, default: int) -> int:
    """Return the number of layers from one global layer to the next."""
    count = values.integer("num_hidden_layers")
    types = values.strings("layer_types", _list_layer_types(count, default))
    period = types.index(GLOBAL) + 1 if GLOBAL in types else count + 1
    if types != _list_layer_types(count, period):
        raise UserError(
            f"{values.label}: layer_types={types!r}: not supported. Use a model in which every "
            f"n-th layer has {GLOBAL!r}, and all others have {LOCAL!r}."
        )
    return period


def _list_layer_types(count: int, period: int) -> list[str]:
    return [LOCAL if number % period else GLOBAL for number in range(1, count + 1)]


def _read_two_ropes(values: ConfigReader) -> tuple[float, tuple[str | float, ...], float]:
    """Return theta and scaling of global layers, and theta of local layers."""
    if values.get("rope_parameters", None) is None:
        return *values.rope(1e6), values.number("rope_local_base_freq", 1e4)
    sections = values.section("rope_parameters")
    ropes = [
        ConfigReader({"rope_parameters": sections.get(kind, {})}, f"{sections.label}.{kind}").rope(
            theta
        )
        for kind, theta in ((GLOBAL, 1e6), (LOCAL, 1e4))
    ]
    (theta, scaling), (local_theta, local_scaling) = ropes
    if local_scaling:
        raise UserError(
            f"{sections.label}.{LOCAL}.rope_type={local_scaling[0]!r}: not supported. Use a model "
            "with 'default'."
        )
    return theta, scaling, local_theta
