"""Converts a language model of the architecture `llama` from GGUF to Hugging Face's layout.

    pip install gguf
    python -m benchmarks.convert_gguf SmolLM2-135M-Instruct.Q4_1.gguf FOLDER

Quantized weights become float32. The tokenizer must be that of SmolLM2 (`smollm`).
"""

import argparse
import json
import pathlib
from typing import Any

import gguf
import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, pre_tokenizers

CONTROL = 3
"""Type of special tokens in GGUF."""

GLOBAL_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Names of tensors in GGUF, with those of transformers."""


def convert(path: pathlib.Path, folder: pathlib.Path) -> None:
    """Write `config.json`, `model.safetensors` and `tokenizer.json` of the model in a GGUF file."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields["general.architecture"] != "llama" or fields["tokenizer.ggml.pre"] != "smollm":
        raise SystemExit(f"{path}: not a model of the architecture llama with SmolLM2's tokenizer.")
    config = make_config(fields)
    tensors = dict(convert_tensor(tensor, config) for tensor in reader.tensors)
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / "model.safetensors")
    make_tokenizer(fields).save(str(folder / "tokenizer.json"))


def make_config(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `config.json`."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.rope.dimension_count"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": fields["llama.rope.freq_base"],
        "max_position_embeddings": fields["llama.context_length"],
        "vocab_size": fields["llama.vocab_size"],
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
    }


def convert_tensor(tensor: gguf.ReaderTensor, config: dict[str, Any]) -> tuple[str, np.ndarray]:
    """Return the name and the values of a tensor in Hugging Face's layout."""
    *prefix, kind, _ = tensor.name.split(".")
    values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    if kind in ("attn_q", "attn_k"):
        # GGUF rotates neighbors; transformers rotates components that are half a head apart.
        pairs = values.reshape(-1, config["head_dim"] // 2, 2, config["hidden_size"])
        values = pairs.swapaxes(1, 2).reshape(values.shape)
    if prefix:
        return f"model.layers.{prefix[1]}.{LAYER_NAMES[kind]}.weight", np.ascontiguousarray(values)
    return f"{GLOBAL_NAMES[kind]}.weight", values


def make_tokenizer(fields: dict[str, Any]) -> tokenizers.Tokenizer:
    """Return SmolLM2's tokenizer, byte-level BPE that splits numbers into digits."""
    names = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocab = {name: number for number, name in enumerate(names)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = zip(names, fields["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([name for name, kind in types if kind == CONTROL])
    return tokenizer


def main() -> None:
    """Parse the command line and convert the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=pathlib.Path, help="GGUF file")
    parser.add_argument("folder", type=pathlib.Path, help="folder to write")
    arguments = parser.parse_args()
    convert(arguments.path, arguments.folder)


if __name__ == "__main__":
    main()
