"""Export of a run by its system."""

from etils import epath

from oneflow_jax.build import finetune
from oneflow_jax.build.system import System
from oneflow_jax.training import export as export_lib


def export(system: System, folder: epath.Path, output: epath.Path) -> epath.Path:
    """Write the files of the run in `folder` that sampling needs; return the path of the weights.

    Factors of LoRA are merged, so the export loads like that of any other run.

    Raises:
        UserError: the run cannot be exported (`training.export.export`).
    """
    return export_lib.export(
        finetune.drop_section(system.config),
        folder,
        output,
        system.abstract_state.ema,
        skip_damaged=system.loop_config.skip_damaged,
        use=system.loop_config.use,
        autoencoder=getattr(system.layout.codec, "autoencoder", None),
        merge=system.merge_params,
    )
