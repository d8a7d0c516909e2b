"""Small random CLIP models, reproducible by seed."""

import json
import zlib

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import normalizers, pre_tokenizers, processors

START, END = 520, 521

CAPTIONS = (
    "a red square",
    "Two  blue circles, and it's 10 o'clock!",
    "",
    "ein Häuschen im Grünen: 日本 🙂",
    "far too many words for what this small model reads of a caption",
)

_LAYER = {
    "layer_norm1": ("d",),
    "layer_norm2": ("d",),
    "self_attn.q_proj": ("d", "d"),
    "self_attn.k_proj": ("d", "d"),
    "self_attn.v_proj": ("d", "d"),
    "self_attn.out_proj": ("d", "d"),
    "mlp.fc1": ("f", "d"),
    "mlp.fc2": ("d", "f"),
}


def config(**changes):
    """Return the `config.json` of a small model; `changes` may update whole sections."""
    text = {
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 3, "vocab_size": 522, "max_position_embeddings": 24,
        "eos_token_id": END, "bos_token_id": START, "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "image_size": 30, "patch_size": 8, "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }  # fmt: skip
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": 16,
        **changes,
        "text_config": text | changes.get("text_config", {}),
        "vision_config": vision | changes.get("vision_config", {}),
    }


def random_tensors(config):
    """Return random tensors for `model.safetensors`; all but logit_scale affect the output."""
    shapes = {"logit_scale": ()}
    for kind in ("text", "vision"):
        values = config[f"{kind}_config"]
        size = {"d": values["hidden_size"], "f": values["intermediate_size"]}
        width, at = size["d"], f"{kind}_model."
        affine = {
            f"{at}encoder.layers.{i}.{name}": tuple(size[letter] for letter in letters)
            for i in range(values["num_hidden_layers"])
            for name, letters in _LAYER.items()
        }
        if kind == "text":
            affine[f"{at}final_layer_norm"] = (width,)
            shapes[f"{at}embeddings.token_embedding.weight"] = (values["vocab_size"], width)
            places = values["max_position_embeddings"]
        else:
            affine |= {f"{at}pre_layrnorm": (width,), f"{at}post_layernorm": (width,)}
            patch = values["patch_size"]
            shapes[f"{at}embeddings.class_embedding"] = (width,)
            shapes[f"{at}embeddings.patch_embedding.weight"] = (width, 3, patch, patch)
            places = (values["image_size"] // patch) ** 2 + 1
        shapes[f"{at}embeddings.position_embedding.weight"] = (places, width)
        shapes[f"{'visual' if kind == 'vision' else kind}_projection.weight"] = (
            config["projection_dim"],
            width,
        )
        for name, shape in affine.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {name: np.asarray(_random(name, shape)) for name, shape in shapes.items()}


def write_model(folder, **changes):
    """Write a folder with a random model: config.json, model.safetensors, tokenizer.json."""
    folder.mkdir(exist_ok=True)
    values = config(**changes)
    (folder / "config.json").write_text(json.dumps(values))
    save_file(random_tensors(values), folder / "model.safetensors", {"format": "pt"})
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def make_tokenizer():
    """Build a tokenizer like CLIP's, with all bytes and a few merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = letters + [f"{letter}</w>" for letter in letters]
    merges = [("r", "e"), ("re", "d</w>"), ("o", "u"), ("c", "i"), ("ci", "r"), ("l", "e"),
              ("le", "s</w>"), ("a", "n")]  # fmt: skip
    words += ["".join(merge) for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    ids = {word: i for i, word in enumerate(words)}
    assert (ids["<|startoftext|>"], ids["<|endoftext|>"]) == (START, END)
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            ids, merges, continuing_subword_prefix="", end_of_word_suffix="</w>",
            unk_token="<|endoftext|>",
        )
    )  # fmt: skip
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
        normalizers.Lowercase(),
    ])  # fmt: skip
    short = r"'s|'t|'re|'ve|'m|'ll|'d"
    words = rf"<\|startoftext\|>|<\|endoftext\|>|{short}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(words), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])  # fmt: skip
    tokenizer.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", END), ("<|startoftext|>", START), trim_offsets=False,
        add_prefix_space=False,
    )  # fmt: skip
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    # Tokenizer files may set padding; the loader must ignore it.
    tokenizer.enable_padding(pad_id=END, length=40)
    return tokenizer


def _random(name, shape):
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if "norm" in name:
        return np.float32(name.endswith("weight")) + np.float32(0.3) * noise
    if len(shape) < 2:
        return np.float32(0.3) * noise
    if "_proj." in name:  # Large, so that attention weights differ between positions.
        return np.float32(2 / shape[1] ** 0.5) * noise
    return np.float32(1 / np.prod(shape[1:]) ** 0.5) * noise
