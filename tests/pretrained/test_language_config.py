import json

import pytest
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import language_config
from tests.pretrained import random_language_model


def parse(name, **changes):
    return language_config.parse(random_language_model.config(name, **changes), "config.json")


def test_families_differ_in_biases_and_norms():
    config = parse("llama")
    assert (config.qkv_bias, config.qk_norm, config.tied_embeddings) == (False, False, False)
    assert (config.layers, config.heads, config.kv_heads, config.head_width) == (3, 4, 2, 16)
    assert (config.norm_eps, config.bos_id, config.eos_id, config.max_length) == (1e-5, 1, 0, 64)
    config = parse("qwen2")
    assert (config.qkv_bias, config.qk_norm, config.tied_embeddings) == (True, False, True)
    config = parse("qwen3")
    assert (config.qkv_bias, config.qk_norm, config.tied_embeddings) == (False, True, False)


@pytest.mark.parametrize(
    ("changes", "theta", "scaling"),
    [
        ({"rope_theta": 7.0, "rope_parameters": None}, 7.0, ()),
        ({"rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}}, 7.0, ()),
        ({"rope_parameters": random_language_model.LLAMA3_ROPE}, 500.0, ("llama3", 8, 1, 4, 32)),
        (
            {
                "rope_theta": 7.0,
                "rope_parameters": None,
                "rope_scaling": {
                    key.replace("rope_type", "type"): value
                    for key, value in random_language_model.LLAMA3_ROPE.items()
                    if key != "rope_theta"
                },
            },
            7.0,
            ("llama3", 8, 1, 4, 32),
        ),
        ({"rope_theta": None, "rope_parameters": None}, 10_000.0, ()),
    ],
)
def test_rope_of_new_and_old_files(changes, theta, scaling):
    config = parse("llama", **changes)
    assert (config.rope_theta, config.rope_scaling) == (theta, scaling)


def test_missing_keys_have_the_defaults_of_transformers():
    config = parse("llama", num_key_value_heads=None, head_dim=None, bos_token_id=None)
    assert (config.kv_heads, config.head_width, config.bos_id) == (4, 8, 0)
    assert parse("llama", eos_token_id=[2, 0]).eos_id == 2


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"architectures": ["GemmaForCausalLM"]}, r"architectures=\['GemmaForCausalLM'\]"),
        ("llama", {"architectures": None}, r"architectures=\[\]: not supported"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu': not supported"),
        ("llama", {"attention_bias": True}, "attention_bias=True: not supported"),
        ("llama", {"mlp_bias": True}, "mlp_bias=True: not supported"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window=True: not supported"),
        ("qwen2", {"layer_types": ["sliding_attention"]}, r"layer_types has \['sliding_attention"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config=.*: not supported"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5: not supported"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn': not supported"),
        (
            "llama",
            {"rope_parameters": {"rope_theta": 1.0, "partial_rotary_factor": 0.5}},
            "partial_rotary_factor=0.5: not supported",
        ),
        ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "factor=None: not a number"),
        ("qwen3", {"head_dim": None}, "head_dim=None: not an integer"),
        ("llama", {"hidden_size": "32"}, "hidden_size='32': not an integer"),
        ("llama", {"eos_token_id": 420}, "eos_token_id=420: not a token id"),
    ],
)
def test_unsupported_models_are_refused(name, changes, message):
    with pytest.raises(UserError, match=message):
        parse(name, **changes)


def test_folders_are_told_apart(tmp_path):
    folder = epath.Path(tmp_path)
    assert not language_config.is_language_model(folder)
    with pytest.raises(UserError, match=r"config\.json: the file does not exist"):
        language_config.read(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({"paradigm": {"name": "language"}}))
    assert not language_config.is_language_model(folder)
    path.write_text(json.dumps(random_language_model.config("llama")))
    assert language_config.is_language_model(folder)
    path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        language_config.is_language_model(folder)
