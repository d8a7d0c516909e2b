"""Import of a pretrained language model: an export of the paradigm `language`."""

import ml_collections
from etils import epath

from oneflow_jax.build import language_model, tokenizers
from oneflow_jax.build import system as system_lib
from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import language_config
from oneflow_jax.runtime import storage, workdir
from oneflow_jax.training import export, train_state


def import_language_model(config: ml_collections.ConfigDict, output: epath.Path) -> epath.Path:
    """Write the language model in `config.init_from` as an export; return the path of its weights.

    Args:
        config: the configuration of the export, such as configs/language_model.py:FOLDER.
        output: the folder of the export.

    Raises:
        UserError: `init_from` is not a language model in Hugging Face's layout, the model is not
            supported, or `output` holds a run.
    """
    start = storage.resolve_path(config.init_from, "init_from")
    if not language_config.is_language_model(start):
        raise UserError(
            f"init_from={start}: not a language model in Hugging Face's layout, with config.json, "
            "model.safetensors and tokenizer.json. Give the folder of such a model."
        )
    language_model.validate(config, start)
    if (output / workdir.CHECKPOINTS).exists():
        raise UserError(f"--output={output}: this is the folder of a run. Choose another folder.")
    output.mkdir(parents=True, exist_ok=True)
    workdir.delete_derived(output)  # An earlier import may have another tokenizer.
    tokenizers.copy(start, output)
    # A loop over the layers gives the same parameters, and compiles in a fraction of the time.
    in_loop = workdir.replace_values(config, {"model.scan_unroll": 1})
    system = system_lib.system(in_loop, output, "import")
    params = train_state.init_params(system)
    params = language_model.load_params(params, start, system.layout.vocab)
    return export.write_unrounded(config, output, params)
