"""What is left of a run to give away: enough to sample from, at a tenth of the size.

    <folder>/config.json           the resolved configuration
    <folder>/tokenizer.model       the SentencePiece model
    <folder>/latents.json          of a model on latents: their mean and deviation
    <folder>/weights.safetensors   the averaged parameters, float16, each under its name

A run's folder has `checkpoints/` in place of the last. Whoever samples reads either; nobody trains
in a release, but a training may begin from one (`start`).
"""

import jax
import ml_collections
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath
from flax import traverse_util

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, workdir
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import checkpoint


def export(
    config: ml_collections.ConfigDict,
    run_dir: epath.Path,
    output: epath.Path,
    abstract_params: PyTree,
) -> epath.Path:
    """Keeps the newest averaged parameters of a run, and what they need, in another folder.

    Args:
        config: of the run.
        run_dir: its folder.
        output: made if need be; an earlier release there is replaced.
        abstract_params: shapes, types and shardings of the averaged parameters.

    Returns:
        The path of the weights, which are written last.

    Raises:
        UserError: the run has no checkpoint, `output` holds a run, several processes share the
            parameters, or float16 cannot hold one of them.
    """
    if distributed.is_multi_process():
        raise UserError("--mode=release wants all parameters in one process: run it on one host.")
    if (output / workdir.CHECKPOINTS).exists():
        raise UserError(f"--into={output} is the folder of a run: choose another.")
    params = traverse_util.flatten_dict(load_ema_params(run_dir, abstract_params), sep="/")
    with np.errstate(over="ignore"):  # It is told below.
        halves = {name: np.asarray(value).astype(np.float16) for name, value in params.items()}
    for name, value in halves.items():
        if not np.isfinite(value).all():
            raise UserError(f"{run_dir}: the parameter {name} has values that float16 cannot hold.")
    output.mkdir(parents=True, exist_ok=True)
    for name in (workdir.TOKENIZER, workdir.LATENTS):
        if (run_dir / name).exists():
            workdir.write_atomically(output / name, (run_dir / name).read_bytes())
    workdir.save_config(output, config)
    path = output / workdir.WEIGHTS
    workdir.write_atomically(path, safetensors.numpy.save(halves, {"name": config.name}))
    return path


def load_ema_params(folder: epath.Path, abstract_params: PyTree) -> PyTree:
    """The averaged parameters in the folder of a run, its newest, or in that of a release.

    Args:
        folder: of either.
        abstract_params: shapes, types and shardings.

    Raises:
        UserError: there is no checkpoint; or a release's weights are damaged, or are not those of
            the configuration beside them.
    """
    if not workdir.is_export(folder):
        with checkpoint.Checkpoints(folder) as checkpoints:
            return checkpoints.restore_ema(abstract_params)
    path = folder / workdir.WEIGHTS
    try:
        stored = safetensors.numpy.load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}): get it anew.") from error
    wanted = traverse_util.flatten_dict(abstract_params, sep="/")
    _check_shapes(path, stored, wanted)
    placed = {
        name: jax.device_put(stored[name].astype(leaf.dtype), leaf.sharding)
        for name, leaf in wanted.items()
    }
    return traverse_util.unflatten_dict(placed, sep="/")


def _check_shapes(path: epath.Path, stored: PyTree, expected: PyTree) -> None:
    there = {name: value.shape for name, value in stored.items()}
    asked = {name: leaf.shape for name, leaf in expected.items()}
    for name in sorted(there.keys() | asked.keys()):
        if there.get(name) != asked.get(name):
            raise UserError(
                f"{path}: the parameter {name} is {there.get(name, 'missing')}, and "
                f"{workdir.CONFIG} beside it asks for {asked.get(name, 'none')}: one of the two "
                "files is another model's."
            )
