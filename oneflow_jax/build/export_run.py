"""Export of a run by its system."""

import math

import jax
from etils import epath

from oneflow_jax.build import finetune, model_card
from oneflow_jax.build.system import System
from oneflow_jax.training import export as export_lib


def export(system: System, folder: epath.Path, output: epath.Path) -> epath.Path:
    """Write the model card and the files that sampling needs; return the path of the weights.

    Factors of LoRA are merged, so the export loads like that of any other run.

    Raises:
        UserError: the run cannot be exported (`training.export.export`).
    """
    config = finetune.drop_section(system.config)
    path = export_lib.export(
        config,
        folder,
        output,
        system.abstract_state.ema,
        skip_damaged=system.loop_config.skip_damaged,
        use=system.loop_config.use,
        autoencoder=getattr(system.layout.codec, "autoencoder", None),
        merge=system.merge_params,
    )
    leaves = jax.tree.leaves(system.abstract_state.ema)
    model_card.write(config, folder, output, sum(math.prod(leaf.shape) for leaf in leaves))
    return path
