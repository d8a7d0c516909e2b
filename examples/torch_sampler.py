"""Samples from an exported `oneflow` model with PyTorch, without JAX and without oneflow_jax.

    pip install torch safetensors sentencepiece pillow diffusers
    python examples/torch_sampler.py oneflow_jax/shipped "a picture of a tiger: <image>"

The folder is one that `--mode=export` wrote, such as that of the shipped model. This file is all
that sampling needs: the network, the flow, an Euler solver, and the layout of a document. So it is
also a short description of the model for other frameworks. A package is needed only for what the
folder has: diffusers for a codec with an autoencoder. Renoising, flow maps, guidance, the other
paradigms and the other text objectives are not implemented here.
"""

import argparse
import json
import math
import pathlib
import re

import numpy as np
import safetensors.torch
import sentencepiece
import torch
from PIL import Image
from torch.nn import functional

BOS, END, SPECIAL_IDS = 1, 2, 5  # Text tokens follow: SentencePiece's id 0 has the id 5.
TEXT, IMAGE = 1, 2  # what a slot holds


class Model:
    """The network and the layout of an exported `oneflow` model.

    Attributes:
        config: the run's configuration, config.json.
        params: parameters by name, float32.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Load the folder; raise ValueError if the model has parts that this file lacks."""
        self.folder = folder
        self.config = json.loads((folder / "config.json").read_text())
        check_supported(self.config)
        stored = safetensors.torch.load_file(folder / "weights.safetensors")
        self.params = {name: value.float() for name, value in stored.items()}
        self.tokenizer = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
        rows = self.params["rows"]
        # Embeddings of tokens are normalized to norm sqrt(E).
        self.table = rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + 1e-12)
        codec = self.config["codec"]
        self.downscale = 1  # pixels per latent, for a codec with an autoencoder
        if codec["name"] == "vae":
            shape = json.loads((folder / "codec" / "config.json").read_text())
            self.downscale = 2 ** (len(shape["block_out_channels"]) - 1)
        self.grid = codec["pixels"] // self.downscale // codec["patch_size"]  # patches per side

    def predict_x1(
        self, kind: torch.Tensor, position: torch.Tensor, state: tuple, time: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict the clean document x1: logits of tokens `[L V]` and patches `[L C]`.

        Args:
            kind: TEXT or IMAGE for each of the L slots.
            position: order, row and column of each slot `[L 3]`.
            state: noisy embeddings `[L E]` and noisy patches `[L C]`.
            time: time of each slot, 0 (noise) to 1 (clean) `[L]`.
        """
        words, patches = self._linear("text_in", state[0]), self._linear("image_in", state[1])
        x = torch.where((kind == TEXT)[:, None], words, patches) + self._clock(time)
        rope = _rope_angles(position, self.config["model"]["head_width"])
        for layer in range(self.config["model"]["layers"]):
            x = self._block(layer, x, rope)
        x = _rms_norm(x, self.params["backbone/norm/scale"])
        return self._linear("outputs_text_logits", x), self._linear("outputs_image", x)

    def _block(self, layer: int, x: torch.Tensor, rope: tuple) -> torch.Tensor:
        def weight(name: str) -> torch.Tensor:
            return self.params[f"backbone/blocks/{name}"][layer]

        y = _rms_norm(x, weight("attention_norm/scale"))
        query, key, value = (
            torch.einsum("ld,dha->hla", y, weight(f"attention/{name}/kernel"))
            for name in ("query", "key", "value")
        )
        query = _rotate(_rms_norm(query, weight("attention/query_norm/scale")), rope)
        key = _rotate(_rms_norm(key, weight("attention/key_norm/scale")), rope)
        groups = query.shape[0] // key.shape[0]
        key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
        seen = functional.scaled_dot_product_attention(query, key, value)
        x = x + torch.einsum("hla,had->ld", seen, weight("attention/out/kernel"))
        y = _rms_norm(x, weight("mlp_norm/scale"))
        hidden = functional.silu(y @ weight("mlp/gate/kernel")) * (y @ weight("mlp/up/kernel"))
        return x + hidden @ weight("mlp/down/kernel")

    def _clock(self, time: torch.Tensor) -> torch.Tensor:
        rates = torch.exp(-math.log(10_000.0) * torch.arange(128) / 128)
        angles = 1000.0 * time[:, None] * rates
        hidden = self._linear("clock/up", torch.cat([angles.cos(), angles.sin()], -1))
        return self._linear("clock/out", functional.silu(hidden))

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.params[f"{name}/kernel"] + self.params[f"{name}/bias"]

    def lay_out(self, prompt: str) -> dict[str, torch.Tensor]:
        """Lay out a prompt with the gaps `<image>`, `<text>`: fields of its L slots.

        A run of text fills a multiple of `data.text_slot_multiple` slots, and END fills its rest.
        """
        multiple = self.config["data"]["text_slot_multiple"]
        ids, given, kinds, positions = [BOS], [True], [TEXT], [(0, 0, 0)]
        for run in filter(str.strip, re.split(r"(<image>)", prompt)):
            order = positions[-1][0] + 1
            if run == "<image>":
                grid = [(order, row, col) for row in range(self.grid) for col in range(self.grid)]
                ids, given = ids + [0] * len(grid), given + [False] * len(grid)
                kinds, positions = kinds + [IMAGE] * len(grid), positions + grid
                continue
            words, gap, rest = run.partition("<text>")
            if rest.strip():
                raise ValueError(f"{run!r}: text follows <text>. Write <text> at the end of text.")
            tokens = [SPECIAL_IDS + piece for piece in self.tokenizer.encode(words.strip())]
            # A gap gets at least half of the multiple; text alone at least one END.
            slots = len(tokens) + (max(1, multiple // 2) if gap else 1)
            slots = -(-slots // multiple) * multiple
            ids += tokens + [END] * (slots - len(tokens))
            given += [True] * len(tokens) + [not gap] * (slots - len(tokens))
            kinds += [TEXT] * slots
            positions += [(order + i, 0, 0) for i in range(slots)]
        return {
            "ids": torch.tensor(ids),
            "given": torch.tensor(given),
            "kind": torch.tensor(kinds),
            "position": torch.tensor(positions),
        }

    @torch.no_grad()
    def sample(
        self, slots: dict[str, torch.Tensor], steps: int, noise: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move the slots that are not given from noise to data by Euler's method, in `steps` steps.

        The signal of text is `paradigm.text_lead` times as strong as that of images, so the solver
        moves y = (1 - t) x0 + t k x1, and text has the time k t / (1 + (k - 1) t).

        Args:
            slots: fields of the slots, from `lay_out`.
            steps: number of forward passes.
            noise: Gaussian noise of the embeddings `[L E]` and of the patches `[L C]`.

        Returns:
            Tokens `[L]` and patches `[L C]`.
        """
        lead = self.config["paradigm"].get("text_lead", 1.0)
        given, is_text = slots["given"][:, None], slots["kind"] == TEXT
        content = lead * self.table[slots["ids"]], torch.zeros_like(noise[1])
        state = [torch.where(given, content[0], self.params["mask"] + noise[0]), noise[1]]
        grid = _make_time_grid(self.config["sampling"]["time_grid"], steps)
        for t, end in zip(grid, [*grid[1:], 1.0], strict=True):
            time = torch.where(slots["given"], torch.tensor(1.0), torch.tensor(t))
            text_time = lead * time / (1 + (lead - 1) * time)
            embeds = state[0] / (1 + (lead - 1) * time)[:, None]
            time = torch.where(is_text, text_time, time)
            logits, patches = self.predict_x1(
                slots["kind"], slots["position"], (embeds, state[1]), time
            )
            words = torch.where(given, content[0], lead * (logits.softmax(-1) @ self.table))
            clean = words, torch.where(given, content[1], patches)
            fraction = (end - t) / (1 - t)  # dx = (x1 - x) dt / (1 - t)
            state = [x + fraction * (x1 - x) for x, x1 in zip(state, clean, strict=True)]
        ids = torch.where(slots["given"] | ~is_text, slots["ids"], logits.argmax(-1))
        return ids, state[1]

    def decode(
        self, slots: dict[str, torch.Tensor], ids: torch.Tensor, patches: torch.Tensor
    ) -> list[str | Image.Image]:
        """Return the document: its texts and images in reading order."""
        parts, at = [], 1
        kinds = slots["kind"].tolist()
        while at < len(kinds):
            if kinds[at] == IMAGE:
                parts.append(self._decode_image(patches[at : at + self.grid**2]))
                at += self.grid**2
                continue
            stop = next((i for i in range(at, len(kinds)) if kinds[i] == IMAGE), len(kinds))
            tokens = ids[at:stop].tolist()
            tokens = tokens[: tokens.index(END)] if END in tokens else tokens
            parts.append(self.tokenizer.decode([max(0, token - SPECIAL_IDS) for token in tokens]))
            at = stop
        return parts

    def _decode_image(self, patches: torch.Tensor) -> Image.Image:
        codec, side = self.config["codec"], self.config["codec"]["patch_size"]
        values = patches.reshape(self.grid, self.grid, side, side, -1).permute(0, 2, 1, 3, 4)
        values = values.reshape(self.grid * side, self.grid * side, -1)
        if codec["name"] == "patches":
            pixels = values * codec["std"] + codec["mean"]
        else:
            from diffusers import AutoencoderKL

            stats = json.loads((self.folder / "latents.json").read_text())
            mean, std = torch.tensor(stats["mean"]), torch.tensor(stats["deviation"])
            latents = values * std * codec["divisor"] + mean
            autoencoder = AutoencoderKL.from_pretrained(self.folder / "codec")
            with torch.no_grad():
                decoded = autoencoder.decode(latents.permute(2, 0, 1)[None]).sample
            pixels = decoded[0].permute(1, 2, 0)
        array = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        return Image.fromarray(np.repeat(array, 3 // array.shape[-1], axis=-1))


def check_supported(config: dict) -> None:
    """Raise ValueError if the model has a part that this file lacks."""
    paradigm, codec = config["paradigm"], config["codec"]
    supported = {
        "paradigm.name": (paradigm["name"], "oneflow"),
        "paradigm.objective": (paradigm["objective"], "cross_entropy"),
        "paradigm.image_prediction": (paradigm["image_prediction"], "x1"),
        "paradigm.flow_map": (paradigm.get("flow_map", False), False),
    }
    # Keys of the network that old exports may lack.
    network = {
        "activation": "silu", "post_norms": False, "embed_scale": 1.0, "score_cap": 0.0,
        "logit_cap": 0.0, "qk_norm": True, "qkv_bias": False, "norm_eps": 1e-6,
        "rope_layout": "axial", "rope_theta": 10_000.0, "embed_projection": True,
        "tied_embeddings": False,
    }  # fmt: skip
    for key, expected in network.items():
        supported[f"model.{key}"] = (config["model"].get(key, expected), expected)
    for key, (found, expected) in supported.items():
        if found != expected:
            raise ValueError(f"{key}={found!r}: this file supports only {expected!r}.")
    if codec["name"] not in ("patches", "vae"):
        raise ValueError(f"codec.name={codec['name']!r}: this file supports patches and vae.")


def _rms_norm(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * scale


def _rope_angles(position: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines: half of the angles for the order, a quarter for row and column."""
    axes = ((0, 10_000.0, width // 4), (1, 100.0, width // 8), (2, 100.0, width // 8))
    angles = [
        position[:, axis, None].float() * base ** -(torch.arange(n) / n) for axis, base, n in axes
    ]
    angle = torch.cat(angles, -1)
    return angle.cos(), angle.sin()


def _rotate(x: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    cos, sin = rope
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _make_time_grid(name: str, steps: int) -> list[float]:
    """Return the start times of the steps, by the names of `oneflow_jax.samplers.time_grids`."""
    grids = {
        "uniform": lambda s: s,
        "cosine": lambda s: 1 - math.cos(math.pi * s / 2),
        "quadratic": lambda s: s**2,
        "cubic": lambda s: s**3,
        "sine": lambda s: math.sin(math.pi * s / 2),
    }
    if name not in grids:
        raise ValueError(f"sampling.time_grid={name!r}: this file supports {', '.join(grids)}.")
    return [grids[name](step / steps) for step in range(steps)]


def main() -> None:
    """Fill the gaps of a prompt, print its texts and save its images."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("folder", type=pathlib.Path, help="folder of an export")
    flags.add_argument("prompt", help="text with the gaps <text> and <image>")
    flags.add_argument("--steps", type=int, default=16, help="forward passes (default: 16)")
    flags.add_argument("--seed", type=int, default=0, help="seed of the noise (default: 0)")
    flags = flags.parse_args()
    torch.manual_seed(flags.seed)
    model = Model(flags.folder)
    slots = model.lay_out(flags.prompt)
    count = len(slots["ids"])
    noise = (
        torch.randn(count, model.table.shape[1]),
        torch.randn(count, model.params["outputs_image/kernel"].shape[1]),
    )
    parts = model.decode(slots, *model.sample(slots, flags.steps, noise))
    for number, part in enumerate(parts):
        if isinstance(part, str):
            print(part)
            continue
        part.save(f"image_{number}.png")
        print(f"image_{number}.png")


if __name__ == "__main__":
    main()
