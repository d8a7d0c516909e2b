"""Parity of our autoencoders with diffusers: same files, same numbers. Run by `make parity`."""

import json

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from etils import epath
from safetensors.numpy import load_file, save_file

from benchmarks import codec
from oneflow_jax.codecs.autoencoder import diffusers_weights, layers, models

TOLERANCE = 1e-4

IMAGE_SHAPES = ((2, 32, 48), (1, 48, 32))
"""Batch, height and width; not square, so that height and width are not confused."""


def block_types(count):
    return {
        "down_block_types": ("DownEncoderBlock2D",) * count,
        "up_block_types": ("UpDecoderBlock2D",) * count,
    }


# Layouts of published models with fewer channels; some have a level that is wide enough for
# `winograd_conv`.
KL = {
    "sd1": {
        "block_out_channels": (16, 32, 32, 32),
        "layers_per_block": 2,
        "norm_num_groups": 8,
    },
    "sdxl": {
        "block_out_channels": (16, 32, 64),
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "scaling_factor": 0.13025,
        "force_upcast": True,
    },
    "sd3": {
        "block_out_channels": (16, 32, 32, 48),
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
    },
    "flux": {
        "block_out_channels": (16, 32, 32, 32),
        "layers_per_block": 2,
        "norm_num_groups": 16,
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
    },
    "ours": {
        "block_out_channels": (16, 24),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "latent_channels": 3,
        "mid_block_add_attention": False,
    },
}

VQ = {
    "equal": {
        "block_out_channels": (16, 32, 64),
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "latent_channels": 4,
        "num_vq_embeddings": 64,
    },
    "unequal": {
        "block_out_channels": (16, 16, 32, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "latent_channels": 8,
        "num_vq_embeddings": 50,
        "vq_embed_dim": 5,
    },
}


def randomize(module):
    """Change every parameter, so that a missing part of the network would show."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if ".to_" in name and name.endswith("weight"):
            # Make attention scores exceed 1, so that attention is not a mean over all positions.
            value.copy_(2 * noise / value.shape[1] ** 0.5)
        else:
            value.add_((0.3 if value.ndim == 1 else 0.03) * noise)
    # Low contrast before the first norm makes its epsilon matter.
    module.encoder.conv_in.weight.mul_(0.01)
    module.encoder.conv_in.bias.mul_(0)
    return module.eval()


@torch.no_grad()
def save_random_model(folder, kind, settings):
    """Save a random diffusers model; return the model and its folder."""
    torch.manual_seed(0)
    theirs = getattr(diffusers, kind)(
        **settings, **block_types(len(settings["block_out_channels"]))
    )
    theirs = randomize(theirs)
    if kind == "VQModel":  # Put codes near encoder outputs, so that many codes are used.
        vectors = theirs.encode(to_torch(random_pixels(*IMAGE_SHAPES[0]))).latents
        vectors = vectors.permute(0, 2, 3, 1).flatten(0, 2)
        codebook = theirs.quantize.embedding.weight
        chosen = torch.arange(len(codebook)) % len(vectors)
        codebook.copy_(vectors[chosen] + 0.1 * torch.randn(codebook.shape))
    theirs.save_pretrained(folder, safe_serialization=True)
    return theirs, epath.Path(folder)


def random_pixels(batch, height, width):
    return np.random.default_rng(0).uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)


def to_torch(x):
    return torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())


def from_torch(x):
    return x.numpy().transpose(0, 2, 3, 1)


def load_ours(folder):
    """Load a model; return its architecture and a function from a name to the jitted method."""
    architecture, params = diffusers_weights.load(folder)
    module = models.make_model(architecture)

    def method(name):
        return jax.jit(lambda x: module.apply({"params": params}, x, method=name))

    return architecture, method


def assert_close(ours, theirs, name):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    # The values vary over positions, so that agreement is not trivial.
    assert theirs.std() > 0.1, name
    difference = np.abs(ours - theirs).max()
    print(f"{name}: {difference:.1e} of {np.abs(theirs).max():.1f}")
    assert difference < TOLERANCE, name


@torch.no_grad()
def assert_kl_agrees(theirs, folder, name):
    _, method = load_ours(folder)
    encode, decode = method("encode"), method("decode")
    for size in IMAGE_SHAPES:
        pixels = random_pixels(*size)
        expected = theirs.encode(to_torch(pixels)).latent_dist
        actual = encode(pixels)
        assert_close(actual.mean, from_torch(expected.mean), f"{name} {size} mean")
        assert_close(actual.log_variance, from_torch(expected.logvar), f"{name} {size} logvar")
        latents = np.random.default_rng(1).standard_normal(actual.mean.shape).astype(np.float32)
        expected = theirs.decode(to_torch(latents)).sample
        assert_close(decode(latents), from_torch(expected), f"{name} {size} decode")


@torch.no_grad()
def assert_vq_agrees(theirs, folder, name):
    architecture, method = load_ours(folder)
    vectors, encode, lookup, decode = map(
        method, ("encode_continuous", "encode", "lookup", "decode")
    )
    for size in IMAGE_SHAPES:
        pixels = random_pixels(*size)
        expected = theirs.encode(to_torch(pixels)).latents
        assert_close(vectors(pixels), from_torch(expected), f"{name} {size} vectors")
        quantized, _, (_, _, codes) = theirs.quantize(expected)
        actual = np.asarray(encode(pixels))
        np.testing.assert_array_equal(actual, codes.numpy().reshape(actual.shape))
        assert len(np.unique(actual)) > 4
        assert_close(lookup(actual), from_torch(quantized), f"{name} {size} lookup")
        shape = (size[0], *actual.shape[1:])
        codes = np.random.default_rng(1).integers(0, architecture.num_vq_embeddings, shape)
        expected = theirs.decode(to_torch(lookup(codes)), force_not_quantize=True).sample
        assert_close(decode(lookup(codes)), from_torch(expected), f"{name} {size} decode")


def test_some_layouts_are_wide():
    for layouts in (KL, VQ):
        widths = [model["block_out_channels"][-1] for model in layouts.values()]
        assert min(widths) < layers.WINOGRAD_MIN_CHANNELS <= max(widths)


@pytest.mark.parametrize("name", KL)
def test_gaussians_agree(tmp_path, name):
    theirs, folder = save_random_model(tmp_path, "AutoencoderKL", KL[name])
    assert_kl_agrees(theirs, folder, name)


@pytest.mark.parametrize("name", VQ)
def test_codes_agree(tmp_path, name):
    theirs, folder = save_random_model(tmp_path, "VQModel", VQ[name])
    assert_vq_agrees(theirs, folder, name)


@pytest.mark.parametrize("axes", [2, 4])
def test_attention_with_old_tensor_names_agrees(tmp_path, axes):
    theirs, folder = save_random_model(tmp_path, "AutoencoderKL", KL["sd1"])
    path = folder / diffusers_weights.WEIGHTS_FILE
    tensors = load_file(path)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = 0
    for new, old in names.items():
        for name in [name for name in tensors if f".{new}." in name]:
            value = tensors.pop(name)
            if value.ndim == 2:
                value = value.reshape(*value.shape, *(1,) * (axes - 2))
            tensors[name.replace(f".{new}.", f".{old}.")] = value
            renamed += 1
    assert renamed == 16
    save_file(tensors, path, {"format": "pt"})
    assert_kl_agrees(theirs, folder, f"old names, {axes} axes")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_agree(tmp_path, dtype):
    theirs, folder = save_random_model(tmp_path, "AutoencoderKL", KL["sdxl"])
    theirs.to(dtype).save_pretrained(folder, safe_serialization=True)
    assert_kl_agrees(theirs.to(torch.float32), folder, str(dtype))


@pytest.mark.parametrize(("kind", "name"), [*(("AutoencoderKL", n) for n in KL),
                                            *(("VQModel", n) for n in VQ)])  # fmt: skip
def test_diffusers_reads_saved_autoencoders(tmp_path, kind, name):
    settings = (KL if kind == "AutoencoderKL" else VQ)[name]
    theirs, folder = save_random_model(tmp_path / "theirs", kind, settings)
    diffusers_weights.save(folder.parent / "ours", *diffusers_weights.load(folder))
    again, loading_info = getattr(diffusers, kind).from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(loading_info.values()), loading_info
    for key, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    for key in json.loads((tmp_path / "ours" / "config.json").read_text()):
        if key != "_class_name":
            values = (again.config[key], theirs.config[key])
            assert len({json.dumps(value) for value in values}) == 1, key
    agrees = assert_kl_agrees if kind == "AutoencoderKL" else assert_vq_agrees
    agrees(again.eval(), folder, name)


def test_bfloat16_computes_nearly_the_same(tmp_path):
    _, folder = save_random_model(tmp_path, "AutoencoderKL", KL["ours"])
    architecture, params = diffusers_weights.load(folder)
    pixels = random_pixels(*IMAGE_SHAPES[0])
    exact, rough = (
        models.make_model(architecture, dtype).apply({"params": params}, pixels)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert 0 < np.abs(exact - rough).mean() < 0.1 * np.std(exact)


def test_benchmark_runs_with_diffusers():
    (case,) = codec.main(["--smoke", "--batch", "1"])["cases"]
    assert len(case["images_per_second"]) == 6
    assert len(case["ours_over"]) == 4
    assert all(ratio.low > 0 for ratio in case["ours_over"].values())


def test_benchmark_rejects_different_outputs(monkeypatch):
    def save_scaled(folder, architecture, params):
        weights_save(folder, architecture, jax.tree.map(lambda leaf: 1.5 * leaf, params))

    weights_save = diffusers_weights.save
    monkeypatch.setattr(diffusers_weights, "save", save_scaled)
    with pytest.raises(AssertionError, match="diffusers, as it comes: encode"):
        codec.main(["--smoke", "--batch", "1"])
