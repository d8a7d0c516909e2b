import json

import numpy as np
import pytest
from etils import epath
from safetensors.numpy import save_file

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import language_config, language_weights
from tests.pretrained import random_language_model


def read(folder):
    folder = epath.Path(folder)
    return language_weights.read(folder, language_config.read(folder))


@pytest.mark.parametrize("name", random_language_model.CONFIGS)
def test_projections_are_stacked_and_split_into_heads(tmp_path, name):
    tensors = random_language_model.random_tensors(random_language_model.config(name))
    weights = read(random_language_model.write_model(tmp_path, name))
    query = tensors["model.layers.1.self_attn.q_proj.weight"]
    width = query.shape[0] // 4
    x = np.linspace(-1, 1, 32, dtype=np.float32)
    heads = np.einsum("d,dha->ha", x, weights.block["attention/query/kernel"][1])
    # In Gemma 2, the projection has the factor sqrt(16 / 24) of its scores.
    factor = np.sqrt(16 / 24) if name == "gemma2" else 1
    np.testing.assert_allclose(heads, factor * (query @ x).reshape(4, width), atol=1e-5)
    out = tensors["model.layers.2.self_attn.o_proj.weight"]
    y = np.einsum("ha,had->d", heads, weights.block["attention/out/kernel"][2])
    np.testing.assert_allclose(y, out @ heads.reshape(-1), atol=1e-4)
    assert ("attention/key/bias" in weights.block) == (name == "qwen2")
    assert ("attention/key_norm/scale" in weights.block) == (name in ("qwen3", "gemma3"))
    assert (weights.head is None) == (name in ("llama3", "qwen2", "gemma2", "gemma3"))


def test_gemmas_norms_and_scores_become_those_of_the_network(tmp_path):
    tensors = random_language_model.random_tensors(random_language_model.config("gemma3"))
    weights = read(random_language_model.write_model(tmp_path, "gemma3"))
    np.testing.assert_array_equal(weights.norm, tensors["model.norm.weight"] + 1)
    layer = "model.layers.2."
    for ours, theirs, factor in (
        ("attention_norm", "input_layernorm", 1),
        ("attention_post_norm", "post_attention_layernorm", 1),
        ("mlp_norm", "pre_feedforward_layernorm", 1),
        ("mlp_post_norm", "post_feedforward_layernorm", 1),
        ("attention/query_norm", "self_attn.q_norm", np.sqrt(16 / 24)),
        ("attention/key_norm", "self_attn.k_norm", 1),
    ):
        expected = factor * (tensors[f"{layer}{theirs}.weight"] + 1)
        np.testing.assert_allclose(weights.block[f"{ours}/scale"][2], expected, rtol=1e-6)


def test_shards_give_the_same_weights(tmp_path):
    folder = random_language_model.write_model(tmp_path)
    whole = read(folder)
    (folder / "model.safetensors").unlink()
    tensors = random_language_model.random_tensors(random_language_model.config("llama"))
    names = sorted(tensors)
    files = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in files.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    sharded = read(folder)
    np.testing.assert_array_equal(sharded.embedding, whole.embedding)
    np.testing.assert_array_equal(sharded.head, whole.head)
    for name, value in whole.block.items():
        np.testing.assert_array_equal(sharded.block[name], value)


def test_tensors_that_do_not_fit_the_configuration_are_named(tmp_path):
    tensors = random_language_model.random_tensors(random_language_model.config("qwen2"))
    folder = random_language_model.write_model(tmp_path / "a", "qwen2", tensors)
    (folder / "config.json").write_text(json.dumps(random_language_model.config("llama")))
    with pytest.raises(UserError, match=r"tensor lm_head\.weight \(420, 32\) is missing"):
        read(folder)
    tied = random_language_model.config("llama", tie_word_embeddings=True, head_dim=8)
    (folder / "config.json").write_text(json.dumps(tied))
    with pytest.raises(UserError, match=r"_proj\.bias .* is not in the network"):
        read(folder)


def test_a_repeated_tied_head_is_ignored(tmp_path):
    tensors = random_language_model.random_tensors(random_language_model.config("llama3"))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    weights = read(random_language_model.write_model(tmp_path, "llama3", tensors))
    assert weights.head is None
