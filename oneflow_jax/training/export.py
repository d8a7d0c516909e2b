"""Export of a run: the files that sampling needs, in about a tenth of the run's size.

    <folder>/config.json           the resolved configuration
    <folder>/tokenizer.model       the SentencePiece model, or tokenizer.json (`build.tokenizers`)
    <folder>/latents.json          mean and std of the latents, if the codec has an autoencoder
    <folder>/layouts.json          layouts of training documents (`data.known_layouts`)
    <folder>/codec/                the autoencoder, if the codec has one, in the layout of diffusers
    <folder>/weights.safetensors   the EMA parameters in float16, by parameter name; in float32 if
                                   the export is an imported language model

A run's folder has `checkpoints/` instead of `weights.safetensors`. Sampling and evaluation read
both kinds of folder. Training cannot resume in an export, but a new run can initialize from an
export (`config.init_from`).
"""

from collections.abc import Callable
from typing import Protocol

import jax
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath
from flax import traverse_util

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, workdir
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import checkpoint, old_parameters


class Savable(Protocol):
    """A model that can write itself to a folder, as `Autoencoder` does."""

    def save(self, folder: epath.Path) -> None:
        """Write the model to a folder."""


def export(
    config: workdir.Config,
    run_dir: epath.Path,
    output: epath.Path,
    abstract_params: PyTree,
    *,
    skip_damaged: bool = False,
    use: str = "newest",
    autoencoder: Savable | None = None,
    merge: Callable[[PyTree], PyTree] = lambda params: params,
) -> epath.Path:
    """Write the EMA parameters of a run, and the other files that sampling needs.

    Args:
        config: the run's configuration.
        run_dir: the run's folder.
        output: the folder to write. A missing folder is created, and an earlier export in the
            folder is replaced.
        abstract_params: shapes, dtypes and shardings of the EMA parameters.
        skip_damaged: whether to skip damaged checkpoints instead of raising an error.
        use: which checkpoint to export, one of `loop_config.USES`.
        autoencoder: the autoencoder of the codec; None for a codec without autoencoder.
        merge: function from the trained parameters to those of the model, `System.merge_params`.

    Returns:
        The path of the weights file, which is written last.

    Raises:
        UserError: the run has no checkpoint, `output` holds a run, the parameters are spread over
            several processes, or a parameter has values that float16 cannot represent.
    """
    if distributed.is_multi_process():
        raise UserError("--mode=export needs all parameters in one process. Run it on one host.")
    if (output / workdir.CHECKPOINTS).exists():
        raise UserError(f"--output={output}: this is the folder of a run. Choose another folder.")
    loaded = load_ema_params(run_dir, abstract_params, skip_damaged=skip_damaged, use=use)
    params = traverse_util.flatten_dict(merge(loaded), sep="/")
    with np.errstate(over="ignore"):  # The check below reports overflow.
        halves = {name: np.asarray(value).astype(np.float16) for name, value in params.items()}
    for name, value in halves.items():
        if not np.isfinite(value).all():
            raise UserError(
                f"{run_dir}: the parameter {name} has values that float16 cannot represent. Sample "
                "from the run's folder instead of an export."
            )
    output.mkdir(parents=True, exist_ok=True)
    if workdir.is_export(output) and (output / workdir.CODEC).exists():
        (output / workdir.CODEC).rmtree()
    for name in workdir.DERIVED:
        if (run_dir / name).exists():
            workdir.write_atomically(output / name, (run_dir / name).read_bytes())
        else:
            (output / name).unlink(missing_ok=True)
    if autoencoder is not None:
        autoencoder.save(output / workdir.CODEC)
    workdir.save_config(output, config)
    path = output / workdir.WEIGHTS
    workdir.write_atomically(path, safetensors.numpy.save(halves, {"name": config.name}))
    return path


def write_unrounded(config: workdir.Config, output: epath.Path, params: PyTree) -> epath.Path:
    """Write an export whose parameters keep their precision; return the path of the weights.

    Args:
        config: the configuration of the model.
        output: the folder to write, which has the tokenizer.
        params: the parameters, in one process.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    arrays = {name: np.ascontiguousarray(jax.device_get(value)) for name, value in flat.items()}
    workdir.save_config(output, config)
    path = output / workdir.WEIGHTS
    workdir.write_atomically(path, safetensors.numpy.save(arrays, {"name": config.name}))
    return path


def load_ema_params(
    folder: epath.Path,
    abstract_params: PyTree,
    *,
    skip_damaged: bool = False,
    use: str = "newest",
) -> PyTree:
    """Load the EMA parameters of a run, or the parameters of an export.

    Args:
        folder: folder of a run or of an export.
        abstract_params: shapes, dtypes and shardings of the EMA parameters.
        skip_damaged: whether to skip damaged checkpoints instead of raising an error.
        use: which checkpoint of a run to load, one of `loop_config.USES`.

    Raises:
        UserError: the folder has neither a checkpoint nor an export, or the parameters in it are
            damaged or do not match the configuration.
    """
    if not workdir.is_export(folder):
        with checkpoint.Checkpoints(folder) as checkpoints:
            return checkpoints.restore_ema(abstract_params, skip_damaged=skip_damaged, use=use)
    path = folder / workdir.WEIGHTS
    try:
        stored = safetensors.numpy.load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}). Get a new copy.") from error
    wanted = traverse_util.flatten_dict(abstract_params, sep="/")
    old_parameters.check_towers(path, stored, wanted)
    _check_shapes(path, stored, wanted)
    placed = {
        name: jax.device_put(stored[name].astype(leaf.dtype), leaf.sharding)
        for name, leaf in wanted.items()
    }
    return traverse_util.unflatten_dict(placed, sep="/")


def _check_shapes(path: epath.Path, stored: PyTree, expected: PyTree) -> None:
    stored_shapes = {name: value.shape for name, value in stored.items()}
    expected_shapes = {name: leaf.shape for name, leaf in expected.items()}
    for name in sorted(stored_shapes.keys() | expected_shapes.keys()):
        if stored_shapes.get(name) != expected_shapes.get(name):
            raise UserError(
                f"{path}: the shape of the parameter {name} is "
                f"{stored_shapes.get(name, 'missing')}, but {workdir.CONFIG} in the same folder "
                f"requires {expected_shapes.get(name, 'none')}. One of "
                "the two files belongs to another model."
            )
