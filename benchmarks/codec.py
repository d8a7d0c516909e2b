"""Speed of our autoencoders and of diffusers with equal weights: `python -m benchmarks.codec`."""

import argparse
import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from benchmarks import report, timing
from oneflow_jax.codecs.autoencoder import diffusers_weights, models
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.runtime import host
from oneflow_jax.shapes import PyTree

try:
    import diffusers
    import torch
except ImportError:
    diffusers = torch = None


@dataclasses.dataclass(frozen=True)
class AutoencoderSize:
    """An autoencoder's architecture, and the height and width of its images in pixels."""

    architecture: Architecture
    pixels: int


_SD1 = (128, 256, 512, 512)
SIZES = {
    "small": AutoencoderSize(Architecture(kind="AutoencoderKL", block_out_channels=(32, 64, 128),
                               norm_num_groups=8), 64),
    "sd1": AutoencoderSize(Architecture(kind="AutoencoderKL", block_out_channels=_SD1,
                             layers_per_block=2), 128),
}  # fmt: skip
"""The autoencoders to measure: a small one, and that of Stable Diffusion 1."""

TINY = AutoencoderSize(
    Architecture(kind="AutoencoderKL", block_out_channels=(8, 16), norm_num_groups=4), pixels=16
)
"""The autoencoder that --smoke measures."""

METHODS = ("encode", "decode")

LAYOUTS = ("as it comes", "channels last")
"""Memory layouts of diffusers' arrays: its default, and the one that is faster in oneDNN."""

TOLERANCE = 1e-3
"""Maximum absolute difference between the outputs of two implementations."""

Candidates = dict[str, Callable[[], object]]


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the results that --json writes."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--rounds", type=int, default=10, help="measurements (default: 10)")
    flags.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    flags.add_argument(
        "--batch", type=int, nargs="+", default=[1, 8], help="images per batch (default: 1 8)"
    )
    flags.add_argument("--json", type=pathlib.Path, metavar="PATH", help="also write results here")
    flags.add_argument("--smoke", action="store_true", help="tiny sizes, one round")
    flags = flags.parse_args(argv)
    host.configure_malloc()
    sizes = {"tiny": TINY} if flags.smoke else {name: SIZES[name] for name in flags.sizes}
    rounds = 1 if flags.smoke else flags.rounds
    results = {"machine": host.machine_info() | _torch_info(), "rounds": rounds, "cases": []}
    report.print_machine(results["machine"])
    if torch is None:
        print("\ndiffusers (requirements-parity.txt) is missing: only our codec is measured.")
    for name, size in sizes.items():
        for batch in flags.batch:
            case = {"size": name, "pixels": size.pixels, "batch": batch}
            case |= measure(size, batch, rounds)
            title = f"{name}, {size.pixels} x {size.pixels}, batch {batch}: median (min-max)"
            report.print_table(title, _rows(case))
            results["cases"].append(case)
    report.save_json(flags.json, results)
    return results


def measure(size: AutoencoderSize, batch: int, rounds: int) -> dict[str, object]:
    """Measure images per second of each implementation, and our speed relative to diffusers'."""
    module = models.make_model(size.architecture)
    side = size.pixels // size.architecture.downscale_factor
    draws = np.random.default_rng(0)
    inputs = {
        "encode": draws.uniform(-1, 1, (batch, size.pixels, size.pixels, 3)),
        "decode": draws.standard_normal((batch, side, side, size.architecture.channels)),
    }
    inputs = {way: jnp.asarray(x, jnp.float32) for way, x in inputs.items()}
    params = jax.jit(module.init)(jax.random.key(0), inputs["encode"])["params"]

    def ours(way: str) -> Callable[[], object]:
        run = jax.jit(lambda params, x: module.apply({"params": params}, x, method=way))
        return functools.partial(run, params, inputs[way])

    candidates = {f"ours {way}": ours(way) for way in METHODS}
    if torch is not None:
        diffusers_candidates = _diffusers_candidates(size.architecture, params, inputs)
        _check_outputs_match(candidates, diffusers_candidates)
        candidates |= diffusers_candidates
    seconds = timing.time_interleaved(candidates, rounds)
    ratios = {
        name: timing.summarize(
            theirs / mine
            for theirs, mine in zip(times, seconds[f"ours {name.split()[-1]}"], strict=True)
        )
        for name, times in seconds.items()
        if not name.startswith("ours")
    }
    rates = {name: timing.summarize(batch / s for s in times) for name, times in seconds.items()}
    return {"images_per_second": rates, "ours_over": ratios}


def _diffusers_candidates(
    architecture: Architecture, params: PyTree, inputs: dict[str, jax.Array]
) -> Candidates:
    """Return functions that run diffusers with our weights and inputs, by memory layout."""
    contestants = {}
    for layout in LAYOUTS:
        order = torch.channels_last if layout == "channels last" else torch.contiguous_format
        with tempfile.TemporaryDirectory() as folder:
            diffusers_weights.save(epath.Path(folder), architecture, params)
            network = getattr(diffusers, architecture.kind).from_pretrained(folder)
        network = network.eval().to(memory_format=order)

        def run(method: Callable, x: object) -> object:
            with torch.inference_mode():
                return method(x, return_dict=False)[0]

        for way in METHODS:
            x = torch.from_numpy(np.array(inputs[way]).transpose(0, 3, 1, 2))
            x = x.contiguous(memory_format=order)
            name = f"diffusers, {layout}: {way}"
            contestants[name] = functools.partial(run, getattr(network, way), x)
    return contestants


def _check_outputs_match(ours: Candidates, references: Candidates) -> None:
    """Check that all implementations return the same outputs: only then are times comparable."""
    for name, run in references.items():
        way = name.split()[-1]
        mine, theirs = ours[f"ours {way}"](), run()
        if way == "encode":
            mine, theirs = mine.mean, theirs.mean
        difference = np.abs(np.asarray(mine).transpose(0, 3, 1, 2) - theirs.numpy()).max()
        assert difference < TOLERANCE, f"{name}: {difference}"


def _torch_info() -> dict[str, str | int]:
    if torch is None:
        return {}
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    return versions | {"torch's threads": torch.get_num_threads()}


def _rows(case: dict[str, object]) -> list[report.Row]:
    rates = case["images_per_second"].items()
    rows = [(f"{name}, images/s", rate.format(digits=2)) for name, rate in rates]
    ratios = case["ours_over"].items()
    return rows + [(f"ours / {name}", ratio.format(digits=2)) for name, ratio in ratios]


if __name__ == "__main__":
    report.run_main(main)
