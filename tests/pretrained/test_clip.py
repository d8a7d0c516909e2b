import dataclasses
import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import clip, clip_network
from tests.pretrained import random_clip, random_inception, torch_zip

CAPTIONS = random_clip.CAPTIONS
MIXED = {"vision_config": {"hidden_act": "gelu"}}
"""A model whose vision tower has another activation than its text tower."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return clip.load(random_clip.write_model(tmp_path_factory.mktemp("clip") / "model", **MIXED))


@pytest.fixture(scope="module")
def images():
    return random_inception.smooth_images(len(CAPTIONS), 47, 64)


def write_with_changes(folder, file="config.json", **changes):
    """Write a model's folder, then change keys of one of its JSON files."""
    random_clip.write_model(folder)
    path = folder / file
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | changes))
    return folder


# Expected values: the same folder evaluated by transformers 5.24 with PyTorch 2.13, in float64.
def test_values_agree_with_transformers(model, images):
    expected = [30.96002766, 22.26877861, -38.85772614, -15.31642769, 10.36112715]
    actual = clip.scores(model, images, CAPTIONS, batch_size=2)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, np.maximum(expected, 0), atol=1e-3)
    embeddings = clip.image_embeddings(model, images)
    read = clip.text_embeddings(model, CAPTIONS)
    np.testing.assert_allclose(100 * (embeddings * read).sum(axis=1), expected, atol=1e-3)
    np.testing.assert_allclose(read[1, :3], [-0.02091621, -0.35225048, -0.20514808], atol=1e-5)
    np.testing.assert_allclose(embeddings[1, :3], [-0.12931865, 0.16170286, 0.31722485], atol=1e-5)


def test_embeddings_are_unit_vectors_in_row_order(model, images):
    for vectors, one in (
        (clip.image_embeddings(model, images, 2), clip.image_embeddings(model, images[3:4])),
        (clip.text_embeddings(model, CAPTIONS, 2), clip.text_embeddings(model, CAPTIONS[3:4])),
    ):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(vectors[3:4], one, atol=1e-5)
        assert np.abs(vectors[2] - one).max() > 0.1


def test_tokens_after_the_end_have_no_influence(model):
    tokens = clip.tokenize(model, CAPTIONS[:1])
    length = 1 + int(np.argmax(tokens == random_clip.END))
    changed = np.concatenate([tokens[:, :length], tokens[:, 1 : 25 - length]], axis=1)
    shape = model.config.text
    np.testing.assert_array_equal(
        clip_network.encode_text(model.text, shape, tokens),
        clip_network.encode_text(model.text, shape, changed),
    )


def test_tokens(model):
    tokens = clip.tokenize(model, CAPTIONS)
    assert tokens.shape == (5, 24)
    assert tokens[0, :10].tolist() == [520, 320, 513, 82, 80, 84, 64, 81, 324, 521]
    assert set(tokens[0, 10:]) == {521}
    # Long captions are truncated; the start and end tokens stay.
    assert (tokens[4, 0], tokens[4, 22], tokens[4, 23]) == (520, 83, 521)
    np.testing.assert_array_equal(tokens[2], [520] + 23 * [521])


@pytest.mark.parametrize(("end", "place"), [(2, 5), (7, 3)])
def test_text_pooling_position(model, tmp_path, end, place):
    """Check pooling at the largest id if eos_token_id is 2, otherwise at the first end token."""
    shape = clip.load(write_with_changes(tmp_path / "m", text_config=random_clip.config(
        text_config={"eos_token_id": end})["text_config"])).config.text  # fmt: skip
    tokens = np.full((1, 24), 3)
    tokens[0, 3], tokens[0, 5:9] = 7, [500, 7, 2, 500]
    before = clip_network.encode_text(model.text, shape, tokens)
    for position in range(9):
        changed = tokens.copy()
        changed[0, position] = 4 if tokens[0, position] == 3 else tokens[0, position] - 1
        if position in (3, 5):
            continue
        same = np.array_equal(before, clip_network.encode_text(model.text, shape, changed))
        assert same == (position > place), position


def test_empty_batch(model):
    assert clip.scores(model, np.zeros((0, 8, 8, 3), np.uint8), []).shape == (0,)


def test_images_are_center_cropped():
    picture = np.zeros((1, 8, 20, 3), np.uint8)
    picture[:, :, 6:14] = 200
    np.testing.assert_array_equal(clip.preprocess(picture, 8), np.full((1, 8, 8, 3), 200))
    picture = picture.transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(clip.preprocess(picture, 8), np.full((1, 8, 8, 3), 200))
    # Bicubic resizing overshoots at edges, and a dot spreads to more than four output pixels.
    enlarged = clip.preprocess(picture[:, 2:18], 32)
    assert enlarged.max() > 205
    dot = np.full((1, 16, 16, 3), 100, np.uint8)
    dot[:, 8, 8] = 255
    assert (clip.preprocess(dot, 8)[0, :, :, 0] != 100).sum() > 4


def test_colors_are_normalized_as_configured(model, images, tmp_path):
    folder = write_with_changes(tmp_path / "m", "preprocessor_config.json",
                     image_mean=[0.5, 0.4, 0.3],
                     image_std=[1, 1, 1], do_resize=True, size=30)  # fmt: skip
    config = clip.load(folder).config
    assert (config.mean, config.std) == ((0.5, 0.4, 0.3), (1, 1, 1))
    squares = clip.preprocess(images, 30)
    config = dataclasses.replace(model.config, mean=config.mean, std=config.std)
    normalized, usual = (
        clip_network.encode_image(model.vision, settings, squares)
        for settings in (config, model.config)
    )
    assert np.abs(normalized - usual).max() > 0.01
    # The new mean and std normalize `moved` to what the usual ones make of `squares`.
    mean, deviation = np.asarray(model.config.mean), np.asarray(model.config.std)
    moved = 255 * ((squares / 255 - mean) / deviation + [0.5, 0.4, 0.3])
    np.testing.assert_allclose(
        clip_network.encode_image(model.vision, config, moved.astype(np.float32)), usual, atol=1e-5
    )


def test_alternative_configuration_files_are_read(tmp_path):
    """Check `text_config_dict` of OpenAI's first models and `processor_config.json`."""
    folder = write_with_changes(tmp_path / "m", "processor_config.json",
                     image_processor={"image_std": [0.1, 0.2, 0.3]})  # fmt: skip
    second = random_clip.config()["text_config"] | {"hidden_act": "gelu"}
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"text_config_dict": second}))
    config = clip.load(folder).config
    assert config.std == (0.1, 0.2, 0.3)
    assert (config.text.hidden_act, config.vision.hidden_act) == ("gelu", "quick_gelu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "siglip"}, "model_type='siglip'"),
        ({"projection_dim": "16"}, "projection_dim='16'"),
        ({"text_config": {"num_attention_heads": 3}}, "hidden_size=512 is not a multiple"),
        ({"text_config": {"eos_token_id": [1, 2]}}, r"text_config\.eos_token_id=\[1, 2\]"),
        ({"text_config": {"layer_norm_eps": 0.0}}, r"text_config\.layer_norm_eps=0\.0"),
        ({"text_config": {"hidden_act": "relu"}}, r"text_config\.hidden_act='relu'"),
        ({"vision_config": {"num_channels": 4}}, "num_channels=4"),
        ({"vision_config": {"patch_size": 225}}, "patch_size=225"),
        ({"vision_config": []}, r"vision_config must be a JSON object, not \[\]"),
    ],
)
def test_unsupported_models_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=rf"config\.json: .*{message}"):
        clip.load(write_with_changes(tmp_path / "m", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resample": 2}, "resample=2: only 3"),
        ({"do_center_crop": False}, "do_center_crop=False"),
        ({"size": {"shortest_edge": 40}}, "size={'shortest_edge': 40}"),
        ({"crop_size": 31}, "crop_size=31"),
        ({"image_mean": [0.5]}, r"image_mean=\[0\.5\]"),
        ({"image_std": 0.5}, r"image_std=0\.5"),
    ],
)
def test_unsupported_preprocessing_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=rf"preprocessor_config\.json: .*{message}"):
        clip.load(write_with_changes(tmp_path / "m", "preprocessor_config.json", **changes))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_and_damaged_files_are_reported(tmp_path, file):
    folder = random_clip.write_model(tmp_path / "m")
    (folder / file).write_text("{")
    with pytest.raises(UserError, match=file):
        clip.load(folder)
    (folder / file).unlink()
    with pytest.raises(UserError, match=f"{file}: the file does not exist"):
        clip.load(folder)


def test_mismatched_weights_are_reported(tmp_path):
    folder = random_clip.write_model(tmp_path / "m")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for change, message in (
        ({"text_model.embeddings.position_ids": np.arange(24)[None]}, None),
        ({"more": np.zeros(3, "f4")}, r"tensor more \(3,\)"),
        ({"text_projection.weight": np.zeros((16, 9), "f4")}, r"tensor text_projection.*\(16, 9\)"),
        ({"visual_projection.weight": None}, r"tensor visual_projection\.weight .*missing"),
    ):
        changed_tensors = {
            name: value for name, value in (tensors | change).items() if value is not None
        }
        save_file(changed_tensors, path)
        if message is None:
            clip.load(folder)
        else:
            with pytest.raises(UserError, match=rf"model\.safetensors: {message}"):
                clip.load(folder)


def test_pickled_weights(model, tmp_path):
    folder = random_clip.write_model(tmp_path / "m", **MIXED)
    torch_zip.write_state_dict(
        folder / "pytorch_model.bin", load_file(folder / "model.safetensors")
    )
    (folder / "model.safetensors").unlink()
    read = clip.text_embeddings(clip.load(folder), CAPTIONS)
    np.testing.assert_array_equal(read, clip.text_embeddings(model, CAPTIONS))


@pytest.mark.parametrize("end", [2, 7])
def test_tokenizer_of_another_model_is_refused(tmp_path, end):
    folder = random_clip.write_model(tmp_path / "m", text_config={"eos_token_id": end})
    tokenizer = random_clip.make_tokenizer()
    tokenizer.post_processor = None
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=r"tokenizer\.json tokenizes a caption as \["):
        clip.tokenize(clip.load(folder), ["", "a red square"])
    folder = random_clip.write_model(tmp_path / "n", text_config={"vocab_size": 521})
    with pytest.raises(UserError, match="below vocab_size=521"):
        clip.tokenize(clip.load(folder), ["a red square"])


def test_invalid_images_and_captions_are_rejected(model, images):
    with pytest.raises(UserError, match="CLIP needs uint8 images"):
        clip.scores(model, images / 255, CAPTIONS)
    with pytest.raises(UserError, match="CLIP needs uint8 images"):
        clip.image_embeddings(model, images[0])
    with pytest.raises(UserError, match="one caption per image, not 4 captions for 5"):
        clip.scores(model, images, CAPTIONS[1:])
    with pytest.raises(UserError, match="batch_size=0"):
        clip.scores(model, images, CAPTIONS, 0)


def test_without_the_package(tmp_path, monkeypatch):
    folder = random_clip.write_model(tmp_path / "m")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"tokenizers is not installed. Run `pip install -r requ"):
        clip.load(folder)
