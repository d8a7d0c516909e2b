import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file, save_file

from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.errors import UserError
from tests.codecs.autoencoder import small_models

ARCHITECTURES = {"kl": small_models.KL, "vq": small_models.VQ}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a small autoencoder."""
    folder = epath.Path(tmp_path)
    diffusers_weights.save(folder, small_models.KL, small_models.random_params(small_models.KL))
    return folder


def rewrite_tensors(folder, change):
    """Rewrite the weights file after `change` has modified its tensors in place."""
    tensors = load_file(folder / diffusers_weights.WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / diffusers_weights.WEIGHTS_FILE, {"format": "pt"})


def load_error(folder):
    with pytest.raises(UserError) as error:
        diffusers_weights.load(folder)
    return str(error.value)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_saved_is_loaded_bit_by_bit(tmp_path, name):
    folder, expected = (
        epath.Path(tmp_path) / "new" / "one",
        small_models.random_params(ARCHITECTURES[name]),
    )
    diffusers_weights.save(folder, ARCHITECTURES[name], expected)
    architecture, params = diffusers_weights.load(folder)
    assert architecture == ARCHITECTURES[name]
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        diffusers_weights.WEIGHTS_FILE,
    }


def test_names_and_axes_are_those_of_diffusers(folder):
    tensors, params = (
        load_file(folder / diffusers_weights.WEIGHTS_FILE),
        small_models.random_params(small_models.KL),
    )
    conv = tensors["decoder.up_blocks.1.resnets.0.conv1.weight"]
    kernel = params["decoder"]["up_blocks_1"]["resnets_0"]["conv1"]["kernel"]
    assert conv.shape == (4, 8, 3, 3)
    np.testing.assert_array_equal(conv[1, 2, 0, 2], kernel[0, 2, 2, 1])
    matrix = tensors["encoder.mid_block.attentions.0.to_out.0.weight"]
    kernel = params["encoder"]["mid_block"]["attentions_0"]["to_out_0"]["kernel"]
    np.testing.assert_array_equal(matrix[1, 2], kernel[2, 1])
    scale = params["decoder"]["conv_norm_out"]["scale"]
    np.testing.assert_array_equal(tensors["decoder.conv_norm_out.weight"], scale)


def test_codes_are_not_transposed(tmp_path):
    folder, params = epath.Path(tmp_path), small_models.random_params(small_models.VQ)
    diffusers_weights.save(folder, small_models.VQ, params)
    table = load_file(folder / diffusers_weights.WEIGHTS_FILE)["quantize.embedding.weight"]
    np.testing.assert_array_equal(table, params["quantize"]["embedding"]["embedding"])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_other_precisions_become_float32(folder, dtype):
    rewrite_tensors(
        folder, lambda tensors: tensors.update({k: v.astype(dtype) for k, v in tensors.items()})
    )
    _, params = diffusers_weights.load(folder)
    expected = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32),
        small_models.random_params(small_models.KL),
    )
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


def test_attention_may_have_its_old_names(folder):
    def make_old(tensors):
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"),
                         ("to_out.0", "proj_attn")):  # fmt: skip
            for name in [name for name in tensors if f".{new}." in name]:
                value = tensors.pop(name)
                value = value[:, :, None, None] if value.ndim == 2 else value
                tensors[name.replace(new, old)] = value

    rewrite_tensors(folder, make_old)
    _, params = diffusers_weights.load(folder)
    jax.tree.map(np.testing.assert_array_equal, params, small_models.random_params(small_models.KL))


def test_the_only_file_may_have_any_name(folder):
    (folder / diffusers_weights.WEIGHTS_FILE).rename(folder / "vae.safetensors")
    jax.tree.map(
        np.testing.assert_array_equal,
        diffusers_weights.load(folder)[1],
        small_models.random_params(small_models.KL),
    )


def test_standard_name_takes_precedence(folder):
    (folder / "other.safetensors").write_bytes(b"nothing")
    diffusers_weights.load(folder)


def test_several_files_are_refused(folder):
    (folder / diffusers_weights.WEIGHTS_FILE).rename(folder / "a.safetensors")
    (folder / "b.safetensors").write_bytes(b"nothing")
    assert "a.safetensors, b.safetensors" in load_error(folder)


NAME = "encoder.mid_block.resnets.0.conv1.weight"


def test_missing_tensors_are_named(folder):
    rewrite_tensors(folder, lambda tensors: tensors.pop(NAME))
    message = load_error(folder)
    assert (
        f"{folder / diffusers_weights.WEIGHTS_FILE}: tensor {NAME} (8, 8, 3, 3) is missing"
        in message
    )


def test_extra_tensors_are_named(folder):
    rewrite_tensors(
        folder, lambda tensors: tensors.update({"decoder.extra": np.ones((2, 5), np.float32)})
    )
    message = load_error(folder)
    assert f"{folder / diffusers_weights.WEIGHTS_FILE}: tensor decoder.extra (2, 5)" in message
    assert "(one of 1)" in message


def test_shapes_are_named(folder):
    rewrite_tensors(
        folder, lambda tensors: tensors.update({NAME: np.ones((8, 4, 3, 3), np.float32)})
    )
    message = load_error(folder)
    assert (
        f"{folder / diffusers_weights.WEIGHTS_FILE}: tensor {NAME} has shape (8, 4, 3, 3)"
        in message
    )
    assert "(8, 8, 3, 3)" in message


def test_convolution_kernel_is_rejected_for_a_matrix(folder):
    name = "encoder.mid_block.attentions.0.to_q.weight"
    rewrite_tensors(
        folder, lambda tensors: tensors.update({name: np.ones((8, 8, 3, 3), np.float32)})
    )
    assert f"tensor {name} has shape (8, 8, 3, 3)" in load_error(folder)


def test_integer_weights_are_rejected(folder):
    rewrite_tensors(folder, lambda tensors: tensors.update({NAME: np.ones((8, 8, 3, 3), np.int32)}))
    assert f"tensor {NAME} has the unsupported type I32" in load_error(folder)


def test_a_config_of_another_model_is_refused(folder):
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layers_per_block": 2}))
    assert "is missing. Check that the config.json in the same folder" in load_error(folder)


def test_a_truncated_file_is_refused(folder):
    path = folder / diffusers_weights.WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1])
    message = load_error(folder)
    assert f"{path}: the file is truncated" in message
    assert "save_pretrained" in message


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.ckpt"])
def test_pickles_are_refused(folder, name):
    (folder / diffusers_weights.WEIGHTS_FILE).rename(folder / name)
    message = load_error(folder)
    assert f"{folder / name} is a pickle. Only safetensors" in message
    assert "use_safetensors=False" in message


def test_pickle_with_another_extension_is_refused(folder):
    (folder / diffusers_weights.WEIGHTS_FILE).write_bytes(b"\x80\x02}q\x00." * 20)
    assert "not a safetensors file" in load_error(folder)


def test_empty_folder_names_the_required_files(folder):
    (folder / diffusers_weights.WEIGHTS_FILE).unlink()
    assert f"{folder} has no .safetensors file" in load_error(folder)


def test_saving_replaces_existing_files(folder):
    expected = small_models.random_params(small_models.VQ, seed=5)
    diffusers_weights.save(folder, small_models.VQ, expected)
    architecture, params = diffusers_weights.load(folder)
    assert architecture == small_models.VQ
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_fingerprint_value_is_fixed(folder):
    """Check the value of a fingerprint: it must never change, since latents on disk store it."""
    mark = diffusers_weights.fingerprint(*diffusers_weights.load(folder))
    assert (
        mark
        == diffusers_weights.fingerprint(
            small_models.KL, small_models.random_params(small_models.KL)
        )
        == "44dbaa697d43eea6"
    )


def test_fingerprint_changes_with_one_bit():
    marks = {
        diffusers_weights.fingerprint(small_models.KL, small_models.random_params(small_models.KL))
    }
    leaves, tree = jax.tree.flatten(small_models.random_params(small_models.KL))
    for n, leaf in enumerate(leaves):
        flat = np.array(leaf).reshape(-1)
        flat[-1] = np.nextafter(flat[-1], np.float32(9))
        others = [*leaves[:n], flat.reshape(leaf.shape), *leaves[n + 1 :]]
        marks.add(diffusers_weights.fingerprint(small_models.KL, jax.tree.unflatten(tree, others)))
    assert len(marks) == len(leaves) + 1


def test_fingerprint_depends_on_the_architecture():
    params = small_models.random_params(small_models.KL)
    rescaled = dataclasses.replace(small_models.KL, scaling_factor=0.5)
    assert diffusers_weights.fingerprint(rescaled, params) != diffusers_weights.fingerprint(
        small_models.KL, params
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["encoder.conv_in.bias", "decoder.mid_block.resnets.0.conv1.weight"]
)
def test_tensors_that_are_not_finite_are_named(folder, name, value):
    def spoil(tensors):
        tensors[name] = tensors[name].copy()
        tensors[name].flat[-1] = value

    rewrite_tensors(folder, spoil)
    assert f"tensor {name} " in load_error(folder)
    assert str(folder / diffusers_weights.WEIGHTS_FILE) in load_error(folder)


def test_doubles_beyond_float32_are_not_finite(folder):
    def spoil(tensors):
        tensors["encoder.conv_in.bias"] = np.full(4, 1e300)

    rewrite_tensors(folder, spoil)
    assert "tensor encoder.conv_in.bias " in load_error(folder)


INDEX_FILE = f"{diffusers_weights.WEIGHTS_FILE}.index.json"


def shard(folder, change_index=lambda index: None, count=3):
    """Split the weights file into shards with an index that `change_index` modifies in place."""
    whole = folder / diffusers_weights.WEIGHTS_FILE
    tensors = load_file(whole)
    whole.unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": {}}
    for n in range(count):
        file = f"diffusion_pytorch_model-{n + 1:05}-of-{count:05}.safetensors"
        chosen = {name: tensors[name] for name in sorted(tensors)[n::count]}
        save_file(chosen, folder / file, {"format": "pt"})
        index["weight_map"] |= dict.fromkeys(chosen, file)
    change_index(index)
    (folder / INDEX_FILE).write_text(json.dumps(index))


def test_shards_with_an_index_are_read(folder):
    _, expected = diffusers_weights.load(folder)
    shard(folder)
    architecture, params = diffusers_weights.load(folder)
    assert architecture == small_models.KL
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_shards_with_an_index_of_any_name(folder):
    _, expected = diffusers_weights.load(folder)
    shard(folder)
    (folder / INDEX_FILE).rename(folder / "vae.safetensors.index.json")
    jax.tree.map(np.testing.assert_array_equal, diffusers_weights.load(folder)[1], expected)
    (folder / "other.safetensors.index.json").write_text("{}")
    assert "other.safetensors.index.json, vae.safetensors.index.json" in load_error(folder)


def test_a_missing_shard_is_named(folder):
    shard(folder)
    (folder / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    assert "diffusion_pytorch_model-00002-of-00003.safetensors" in load_error(folder)
    assert INDEX_FILE in load_error(folder)


def test_a_truncated_shard_is_named(folder):
    shard(folder)
    path = folder / "diffusion_pytorch_model-00003-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path}: the file is truncated" in load_error(folder)


def test_an_infinite_tensor_in_a_shard_is_named(folder):
    def spoil(tensors):
        tensors["encoder.conv_in.bias"] = np.full(4, np.inf, np.float32)

    rewrite_tensors(folder, spoil)
    shard(folder)
    assert "tensor encoder.conv_in.bias " in load_error(folder)


ESCAPES = ["../secret.safetensors", "/etc/passwd.safetensors", "a/b.safetensors", "..", "",
           "a\\b.safetensors", "gs://bucket/a.safetensors", "weights.bin", 3, None,
           ["a"]]  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES, ids=str)
def test_an_index_names_only_files_beside_it(folder, name):
    outside = folder.parent / "secret.safetensors"
    outside.write_bytes((folder / diffusers_weights.WEIGHTS_FILE).read_bytes())
    shard(folder, lambda index: index["weight_map"].update({"encoder.conv_in.bias": name}))
    message = load_error(folder)
    assert f"weight_map.encoder.conv_in.bias={name!r}" in message
    assert INDEX_FILE in message


def test_an_index_and_its_shards_agree(folder):
    shard(folder, lambda index: index["weight_map"].pop("encoder.conv_in.bias"))
    assert "tensor encoder.conv_in.bias is not in" in load_error(folder)


def test_tensors_of_an_index_are_in_their_shards(folder):
    first = "diffusion_pytorch_model-00001-of-00003.safetensors"
    shard(folder, lambda index: index["weight_map"].update({"encoder.more": first}))
    message = load_error(folder)
    assert f"{folder / first}: tensor encoder.more is missing" in message


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 100_000, "1" * 9_000],
    ids=range(7),
)
def test_malformed_indices_are_named(folder, text):
    shard(folder)
    (folder / INDEX_FILE).write_text(text)
    assert str(folder / INDEX_FILE) in load_error(folder)


def test_old_names_in_shards(folder):
    _, expected = diffusers_weights.load(folder)

    def rename(tensors):
        for name in [name for name in tensors if ".to_q." in name]:
            tensors[name.replace(".to_q.", ".query.")] = tensors.pop(name)

    rewrite_tensors(folder, rename)
    shard(folder)
    jax.tree.map(np.testing.assert_array_equal, diffusers_weights.load(folder)[1], expected)
