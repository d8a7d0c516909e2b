"""Time per generated token with a KV cache, of stacked layers and of layers split by `nn.unstack`.

python -m benchmarks.decode
python -m benchmarks.decode --layers 4 --width 128 --heads 2 --hidden 384 --embed 512
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks import problem, report, timing
from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern
from oneflow_jax.nn import bound_model, unstack
from oneflow_jax.nn.attention import KVCache
from oneflow_jax.nn.model import Model
from oneflow_jax.runtime import host, sharding
from oneflow_jax.shapes import Array, Int, PyTree

BATCH_SIZES = (1, 8)


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Measure, print, and return the results that --json writes."""
    flags = report.make_parser(__doc__.splitlines()[0], rounds=15)
    flags.add_argument("--tokens", type=int, default=64, help="tokens per row (default: 64)")
    flags = flags.parse_args(argv)
    sizes = report.setup(flags)
    with sharding.mesh_context(problem.single_device_mesh()):
        results = measure(sizes, flags)
    report.print_machine(results["machine"])
    for case in results["cases"]:
        report.print_table(f"batch {case['batch']}, median of rounds (min-max)", [
            ("stacked, ms per token", case["stacked_seconds"].format(1000, 2)),
            ("unstacked, ms per token", case["unstacked_seconds"].format(1000, 2)),
            ("unstacked / stacked", case["ratio"].format(digits=2)),
        ])  # fmt: skip
    report.save_json(flags.json, results)
    return results


def measure(sizes: problem.WorkloadSizes, flags: argparse.Namespace) -> dict[str, object]:
    """Measure stacked and unstacked layers at each batch size; ratios are of the same round."""
    workload = problem.Workload(sizes)
    params = workload.init_state().params
    model = workload.model.clone(attention_pattern=AttentionPattern.CAUSAL)
    return {
        "machine": host.machine_info(),
        "sizes": dataclasses.asdict(sizes),
        "rounds": flags.rounds,
        "tokens": flags.tokens,
        "cases": [_measure_case(model, params, batch, flags) for batch in BATCH_SIZES],
    }


def _measure_case(
    model: Model, params: PyTree, batch: int, flags: argparse.Namespace
) -> dict[str, object]:
    candidates = {
        "stacked": make_writer(model, params, batch, flags.tokens),
        "unstacked": make_writer(*unstack.unstack_layers(model, params), batch, flags.tokens),
    }
    seconds = timing.time_interleaved(candidates, flags.rounds)
    pairs = zip(seconds["stacked"], seconds["unstacked"], strict=True)
    return {
        "batch": batch,
        "ratio": timing.summarize(unstacked / stacked for stacked, unstacked in pairs),
    } | {
        f"{name}_seconds": timing.summarize(s / flags.tokens for s in seconds[name])
        for name in candidates
    }


def make_writer(model: Model, params: PyTree, batch: int, tokens: int) -> Callable[[], KVCache]:
    """Return a function that decodes `tokens` tokens greedily in each of `batch` rows."""

    @jax.jit
    def write(params: PyTree) -> KVCache:
        network = bound_model.BoundModel(model, params)
        table = model.apply({"params": params}, method="embedding_table")
        canvas = jax.tree.map(lambda x: x[:, :1], problem.Workload(problem.TINY).canvas(batch))
        embeds = jnp.broadcast_to(table.embedding[0], (batch, 1, model.embed_width))
        latents = jnp.zeros((batch, 1, params["image_in"]["kernel"].shape[0]))
        view = canvases.noisy_canvas(canvas, embeds, latents, jnp.ones((batch, 1)))

        def step(number: Int[Array, ""], carry: tuple[Array, KVCache]) -> tuple[Array, KVCache]:
            embeds, cache = carry
            position = view.position.at[..., 0].set(number)
            outputs, cache = network.decode(view.replace(embeds=embeds, position=position), cache)
            token = jnp.argmax(outputs["text_logits"], axis=-1)
            return table.embedding[token], cache.advance(jnp.ones(batch, jnp.int32))

        empty = network.init_cache(batch, tokens)
        return jax.lax.fori_loop(0, tokens, step, (embeds, empty))[1]

    return functools.partial(write, params)


if __name__ == "__main__":
    report.run_main(main)
