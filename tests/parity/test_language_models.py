"""Pretrained language models against transformers: logits, tokens, and greedy text."""

import jax
import numpy as np
import pytest
import torch
import transformers
from etils import epath

import oneflow_jax as of
from configs import language_model
from oneflow_jax import canvas as canvases
from oneflow_jax.build import import_run
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import vocab
from oneflow_jax.data.document import Document, Text
from oneflow_jax.data.pretrained_vocab import PretrainedVocab
from oneflow_jax.runtime import sharding, workdir
from oneflow_jax.training import export
from tests.pretrained import random_language_model

TOLERANCE = 1e-4

PROMPT = "naïve café 123, it's the capital 🦊 of\n\nFrance"


def import_model(folder, output):
    """Import the model in a folder; return its system and its parameters."""
    config = language_model.get_config(str(folder))
    config.data.sequence_length = 96
    import_run.import_language_model(config.lock(), epath.Path(output))
    system = system_lib.system(
        workdir.load_config(epath.Path(output)), epath.Path(output), "sample"
    )
    return system, export.load_ema_params(epath.Path(output), system.abstract_state.ema)


def compute_logits(system, params, text):
    """Return our logits after BOS and after each token of a text, `[1 + n V]`."""
    row = system.layout.row(Document((Text(text),)))
    length = 1 + len(system.layout.vocab.encode(text))

    @jax.jit
    def apply(params, canvas):
        table = system.model.apply({"params": params}, method="embedding_table")
        time = np.ones(canvas.ids.shape, np.float32)
        view = canvases.noisy_canvas(canvas, table.embedding[canvas.ids], canvas.latents, time)
        return system.model.apply({"params": params}, view)["token_logits"]

    with sharding.mesh_context(system.mesh):
        return np.asarray(apply(params, system.layout.canvas([row])))[0, :length]


@torch.no_grad()
@pytest.mark.parametrize("name", random_language_model.CONFIGS)
def test_logits_equal_transformers(tmp_path, name):
    folder = random_language_model.write_model(tmp_path / "model", name)
    theirs, loading_info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(loading_info.values()), loading_info
    system, params = import_model(folder, tmp_path / "imported")
    pretrained = system.layout.vocab.pretrained_ids
    start = system.layout.vocab.text.start
    tokens = pretrained[np.array(system.layout.vocab.encode(PROMPT)) - start]
    begin = random_language_model.SIZES["bos_token_id"]
    expected = theirs.eval()(torch.from_numpy(np.array([[begin, *tokens]]))).logits[0].numpy()
    logits = compute_logits(system, params, PROMPT)
    difference = np.abs(logits[:, start : start + len(pretrained)] - expected[:, pretrained]).max()
    end = np.abs(logits[:, vocab.END] - expected[:, random_language_model.SIZES["eos_token_id"]])
    print(f"{name}: {difference:.1e}, END {end.max():.1e}, of {np.abs(expected).max():.2f}")
    assert len(tokens) > 4 * random_language_model.GEMMA["sliding_window"]
    # The logits differ between positions, so that agreement is not trivial.
    assert expected.std(axis=0).mean() > 0.1
    assert max(difference, end.max()) < TOLERANCE


@pytest.mark.parametrize("name", ["llama3", "gemma2", "gemma3"])
def test_a_model_saved_by_transformers_is_read(tmp_path, name):
    """Check the keys and shards that this version of transformers writes, in bfloat16."""
    folder = random_language_model.write_model(tmp_path / "model", name)
    before = import_model(folder, tmp_path / "before")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    theirs.save_pretrained(tmp_path / "again", max_shard_size="40KB")
    assert (tmp_path / "again" / "model.safetensors.index.json").exists()
    (tmp_path / "again" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    after = import_model(tmp_path / "again", tmp_path / "after")
    assert after[0].config.model.to_dict() == before[0].config.model.to_dict()
    for ours, rounded in zip(*map(jax.tree.leaves, (before[1], after[1])), strict=True):
        np.testing.assert_allclose(ours, rounded, rtol=2**-7, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_greedy_text_equals_transformers(tmp_path, name):
    """Check the KV cache and the sampler: the same tokens, until the row is full."""
    folder = random_language_model.write_model(tmp_path / "model", name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    system, _ = import_model(folder, tmp_path / "imported")
    tokenizer = system.layout.vocab
    given = tokenizer.pretrained_ids[np.array(tokenizer.encode("it's")) - tokenizer.text.start]
    begin = random_language_model.SIZES["bos_token_id"]
    never = sorted(set(range(420)) - {0, *tokenizer.pretrained_ids.tolist()})
    ids = theirs.generate(
        torch.from_numpy(np.array([[begin, *given]])), do_sample=False, max_new_tokens=24,
        suppress_tokens=never, eos_token_id=0, pad_token_id=0,
    )[0].tolist()[1:]  # fmt: skip
    ids = ids[: ids.index(0)] if 0 in ids else ids
    position = {token: n for n, token in enumerate(tokenizer.pretrained_ids.tolist())}
    expected = tokenizer.decode([tokenizer.text.start + position[token] for token in ids])
    model = of.load(tmp_path / "imported")
    text = model.generate("it's <text>", temperature=0.0)[0].text
    assert len(expected) > 12
    assert text.startswith(expected.rstrip("\ufffd"))


@pytest.mark.parametrize("name", random_language_model.CONFIGS)
def test_tokens_equal_transformers(tmp_path, name):
    folder = random_language_model.write_model(tmp_path, name)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ours = PretrainedVocab.load(folder / "tokenizer.json")
    for text in random_language_model.TEXTS:
        if "<|" in text:  # In our texts, names of special tokens are letters.
            continue
        ids = ours.encode(text)
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.pretrained_ids[np.array(ids) - ours.text.start].tolist() == expected
        assert ours.decode(ids) == theirs.decode(expected, clean_up_tokenization_spaces=False)
