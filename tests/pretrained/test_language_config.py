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


def test_gemma_has_two_ropes_windows_and_caps():
    config = parse("gemma2")
    assert (config.rope_theta, config.rope_local_theta, config.rope_scaling) == (500.0, 500.0, ())
    assert (config.sliding_window, config.global_every, config.tied_embeddings) == (5, 2, True)
    assert (config.score_cap, config.logit_cap, config.qk_norm) == (1.5, 3.0, False)
    values = random_language_model.config("gemma2", final_logit_softcapping=None)
    assert language_config.parse(values, "config.json").logit_cap == 0.0
    del values["final_logit_softcapping"]
    assert language_config.parse(values, "config.json").logit_cap == 30.0
    config = parse("gemma3")
    assert (config.rope_theta, config.rope_local_theta) == (5e4, 500.0)
    assert (config.rope_scaling, config.global_every) == (("linear", 8.0), 2)
    assert (config.score_cap, config.logit_cap, config.qk_norm) == (0.0, 0.0, True)


def test_ropes_of_new_gemma_files():
    sections = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 7.0},
        "sliding_attention": {"rope_type": "default"},
    }
    config = parse("gemma3", rope_parameters=sections)
    assert (config.rope_theta, config.rope_scaling) == (7.0, ("linear", 8.0))
    assert config.rope_local_theta == 10_000.0


@pytest.mark.parametrize(
    ("types", "every"),
    [("LGL", 2), ("LLG", 3), ("GGG", 1), ("LLL", 4), (None, 2)],
)
def test_every_nth_layer_of_gemma_is_global(types, every):
    names = {"L": "sliding_attention", "G": "full_attention"}
    types = types and [names[letter] for letter in types]
    assert parse("gemma2", layer_types=types).global_every == every


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
        ("llama", {"architectures": ["Gemma3ForConditionalGeneration"]}, "Use a model of one of"),
        ("gemma2", {"hidden_activation": "gelu"}, "hidden_activation='gelu': not supported"),
        (
            "gemma2",
            {"rope_scaling": {"rope_type": "linear", "factor": 2}},
            "not supported in Gemma",
        ),
        (
            "gemma2",
            {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
            "Use a model in which every n-th layer has 'full_attention'",
        ),
        ("gemma3", {"layer_types": "full_attention"}, "not a list of names"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0: not supported"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True: not"),
        (
            "gemma3",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2}}},
            r"sliding_attention\.rope_type='linear': not supported",
        ),
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
