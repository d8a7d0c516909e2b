"""Small random language models in Hugging Face's layout, reproducible by seed."""

import json
import pathlib

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

TEXTS = (
    "The capital of France is Paris.",
    "naïve café, Größe: ½ € — “quoted”",
    "  two  spaces\tand a tab \n\n  then two lines\n",
    "🦊 foxes, 👩‍🚀 astronauts and 🇫🇷 flags",
    "日本語のテキスト и русский текст",
    "def f(x):\n    return x ** 2  # 12345.678",
    "it's <|endoftext|> not a token, nor <image> nor <end>",
    "Don't   STOP\r\nI'LL go",
)
"""Texts with accents, emoji, spaces, line breaks and the names of special tokens."""

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 420, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 0,
}  # fmt: skip

LLAMA3_ROPE = {
    "rope_theta": 500.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip

GEMMA = {
    "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 24, "sliding_window": 5,
}  # fmt: skip
"""Keys of both generations of Gemma; the window is shorter than the texts of the tests."""

CONFIGS = {
    "llama": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
    },
    "llama3": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "rope_parameters": LLAMA3_ROPE,
        "tie_word_embeddings": True,
    },
    "qwen2": {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "rope_theta": 1e6,
        "head_dim": 8,
        "tie_word_embeddings": True,
    },
    "qwen3": {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "rope_theta": 1e6,
    },
    "gemma2": GEMMA
    | {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "rope_theta": 500.0,
        "attn_logit_softcapping": 1.5,
        "final_logit_softcapping": 3.0,
    },
    "gemma3": GEMMA
    | {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "attn_logit_softcapping": None,
        "sliding_window_pattern": 2,
        "rope_theta": 5e4,
        "rope_local_base_freq": 500.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
}
"""One `config.json` for each kind of network, without `SIZES`."""

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Pattern that Qwen's tokenizers split texts by; that of Llama 3 keeps up to three digits."""


def config(name, **changes):
    """Return the `config.json` of a small model."""
    return SIZES | CONFIGS[name] | changes


def random_tensors(values):
    """Return random tensors for `model.safetensors`."""
    rng = np.random.default_rng(0)
    width, hidden, vocab = (
        values[key] for key in ("hidden_size", "intermediate_size", "vocab_size")
    )
    a, heads, kv = (
        values[key] for key in ("head_dim", "num_attention_heads", "num_key_value_heads")
    )
    (architecture,) = values["architectures"]
    is_gemma = architecture.startswith("Gemma")
    layer = {
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
        "self_attn.q_proj": (heads * a, width),
        "self_attn.k_proj": (kv * a, width),
        "self_attn.v_proj": (kv * a, width),
        "self_attn.o_proj": (width, heads * a),
        "mlp.gate_proj": (hidden, width),
        "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
    }
    if architecture.startswith(("Qwen3", "Gemma3")):
        layer |= {"self_attn.q_norm": (a,), "self_attn.k_norm": (a,)}
    if is_gemma:
        layer |= {"pre_feedforward_layernorm": (width,), "post_feedforward_layernorm": (width,)}
    shapes = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,)}
    for number in range(values["num_hidden_layers"]):
        prefix = f"model.layers.{number}"
        shapes |= {f"{prefix}.{name}.weight": shape for name, shape in layer.items()}
        if architecture.startswith("Qwen2"):
            shapes |= {f"{prefix}.self_attn.{n}_proj.bias": layer[f"self_attn.{n}_proj"][:1]
                       for n in "qkv"}  # fmt: skip
    if not values.get("tie_word_embeddings", is_gemma):
        shapes["lm_head.weight"] = (vocab, width)
    return {
        name: (0.5 + 0.3 * rng.standard_normal(shape) if len(shape) == 1
               else rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
        for name, shape in shapes.items()
    }  # fmt: skip


def make_tokenizer(name):
    """Return a tokenizer of the family: SmolLM2's (`llama`), Llama 3's, Qwen's or Gemma's."""
    if name.startswith("gemma"):
        return _make_gemma_tokenizer()
    tokenizer = tokenizers.Tokenizer(models.BPE())
    if name == "llama":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True),
             pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )  # fmt: skip
    else:
        pattern = _SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|") if name == "llama3" else _SPLIT
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )  # fmt: skip
    if name.startswith("qwen"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def _make_gemma_tokenizer():
    """Return a tokenizer as SentencePiece makes it: spaces are "▁", other symbols are bytes."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=150, limit_alphabet=60, show_progress=False,
        special_tokens=["<eos>", "<bos>", "<pad>", "<unk>"],
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    values = json.loads(tokenizer.to_str())
    tokens = values["model"]["vocab"]
    tokens |= {f"<0x{byte:02X}>": len(tokens) + byte for byte in range(256)}
    return tokenizers.Tokenizer.from_str(json.dumps(values))


def write_model(folder, name="llama", tensors=None, **changes):
    """Write a model to a folder; return the folder."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = config(name, **changes)
    (folder / "config.json").write_text(json.dumps(values))
    save_file(random_tensors(values) if tensors is None else tensors, folder / "model.safetensors")
    make_tokenizer(name).save(str(folder / "tokenizer.json"))
    return folder
