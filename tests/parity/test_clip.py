"""Parity of our CLIP with transformers: same files, same embeddings and scores."""

import numpy as np
import pytest
import torch
import transformers

from oneflow_jax.pretrained import clip, clip_config, clip_network
from tests.pretrained import random_clip, random_inception

TOLERANCE = 1e-4

MODELS = {
    "legacy end": {"text_config": {"eos_token_id": 2}},
    "end by its number": {},
    "gelu": {"text_config": {"hidden_act": "gelu"}, "vision_config": {"hidden_act": "gelu"}},
    "great epsilon": {
        "text_config": {"layer_norm_eps": 0.3},
        "vision_config": {"layer_norm_eps": 0.2},
    },
    "second copies": {
        "text_config_dict": random_clip.config()["text_config"] | {"hidden_act": "gelu"},
        "vision_config_dict": random_clip.config()["vision_config"] | {"layer_norm_eps": 0.1},
    },
}

SIZES = ((30, 30), (47, 64), (20, 13))
"""Heights and widths of images, for a model of 30 x 30 pixels."""


def preprocess_with_transformers(folder, captions, images):
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30}
    )
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    read = tokenizer(list(captions), padding=True, truncation=True, max_length=24,
                     return_tensors="pt")  # fmt: skip
    return processor(list(images), return_tensors="pt"), read


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_vectors_and_scores_agree(tmp_path, name):
    folder = random_clip.write_model(tmp_path / "model", **MODELS[name])
    theirs, loading_info = transformers.CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading_info.values()), loading_info
    theirs.eval()
    ours = clip.load(folder)
    captions = random_clip.CAPTIONS
    for size in SIZES:
        pictures = random_inception.smooth_images(len(captions), *size)
        looked_at, read = preprocess_with_transformers(folder, captions, pictures)
        out = theirs(**looked_at, **read)
        assert_close(clip.text_embeddings(ours, captions, 2), out.text_embeds, f"{name} captions")
        assert_close(
            clip.image_embeddings(ours, pictures, 2), out.image_embeds, f"{name} {size} pictures"
        )
        cosine = (out.text_embeds * out.image_embeds).sum(-1)
        actual = clip.scores(ours, pictures, captions)
        np.testing.assert_allclose(actual, 100 * cosine.clamp(min=0), atol=100 * TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("end", [2, 7])
def test_pooling_position_equals_transformers(tmp_path, end):
    """Use random tokens: the rules "highest id" (end id 2) and "first end token" must differ."""
    folder = random_clip.write_model(tmp_path / "model", text_config={"eos_token_id": end})
    theirs = transformers.CLIPModel.from_pretrained(folder).eval()
    ours = clip.load(folder)
    tokens = np.random.default_rng(0).integers(8, 522, (6, 24))
    tokens[np.arange(6), [3, 5, 23, 0, 9, 14]] = 7
    tokens[:, 20] = 7
    expected = theirs.get_text_features(torch.from_numpy(tokens)).pooler_output
    expected = expected / expected.norm(dim=-1, keepdim=True)
    actual = clip_network.encode_text(ours.text, ours.config.text, tokens)
    assert_close(np.asarray(actual), expected, f"end {end}")


def assert_close(ours, theirs, name):
    theirs = theirs.numpy()
    assert ours.shape == theirs.shape
    # The vectors differ between rows, so that agreement is not trivial.
    assert theirs.std(axis=0).mean() > 0.02, name
    difference = np.abs(ours - theirs).max()
    print(f"{name}: {difference:.1e} of {np.abs(theirs).max():.2f}")
    assert difference < TOLERANCE, name


@pytest.mark.parametrize("size", [*SIZES, (31, 90), (301, 200)])
def test_preprocessing_equals_transformers(size):
    """Check preprocessing against transformers; only the order of float operations differs."""
    pictures = random_inception.smooth_images(2, *size)
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30}
    )
    expected = processor(list(pictures), return_tensors="np")["pixel_values"]
    mean, deviation = np.asarray(clip_config.MEAN), np.asarray(clip_config.STD)
    actual = (clip.preprocess(pictures, 30) / 255 - mean) / deviation
    np.testing.assert_allclose(actual.transpose(0, 3, 1, 2), expected, atol=1e-6)


def test_tokens_agree(tmp_path):
    folder = random_clip.write_model(tmp_path / "model")
    theirs = transformers.CLIPTokenizer.from_pretrained(folder)
    expected = theirs(list(random_clip.CAPTIONS), padding="max_length", truncation=True,
                    max_length=24, return_tensors="np")  # fmt: skip
    actual = clip.tokenize(clip.load(folder), random_clip.CAPTIONS)
    np.testing.assert_array_equal(actual, expected["input_ids"])
    assert len(np.unique(actual)) > 40


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_color_normalization_is_read_from_saved_folders(tmp_path, name):
    folder = random_clip.write_model(tmp_path / "model")
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30},
        image_mean=[0.5, 0.4, 0.3], image_std=[0.1, 0.2, 0.3],
    )  # fmt: skip
    if name == "preprocessor_config.json":
        processor.save_pretrained(folder)
    else:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
        transformers.CLIPProcessor(processor, tokenizer).save_pretrained(folder)
    assert (folder / name).exists(), sorted(path.name for path in folder.iterdir())
    config = clip.load(folder).config
    assert (config.mean, config.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    clip.tokenize(clip.load(folder), random_clip.CAPTIONS)


def test_pickled_weights_give_equal_results(tmp_path):
    folder = random_clip.write_model(tmp_path / "model")
    before = clip.text_embeddings(clip.load(folder), random_clip.CAPTIONS)
    path = folder / "model.safetensors"
    state = transformers.CLIPModel.from_pretrained(folder).state_dict()
    torch.save(state | {"text_model.embeddings.position_ids": torch.arange(24)[None]},
               folder / "pytorch_model.bin")  # fmt: skip
    path.unlink()
    after = clip.text_embeddings(clip.load(folder), random_clip.CAPTIONS)
    np.testing.assert_array_equal(before, after)


def test_folder_saved_by_transformers_gives_equal_results(tmp_path):
    """Load a folder saved by transformers, which may contain more files and keys."""
    folder = random_clip.write_model(tmp_path / "model")
    before = clip.text_embeddings(clip.load(folder), random_clip.CAPTIONS)
    again = tmp_path / "again"
    transformers.CLIPModel.from_pretrained(folder).save_pretrained(again)
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(again)
    ours = clip.load(again)
    np.testing.assert_array_equal(before, clip.text_embeddings(ours, random_clip.CAPTIONS))
    assert ours.config == clip.load(folder).config
