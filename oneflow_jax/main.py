"""Runs the command line: `python -m oneflow_jax.main --config=configs/quickstart.py`.

The program `oneflow` calls this module, and the package `cli` has the flags and the help. This
module only dispatches to `training`, `evaluate`, `sample` and others, which tests and notebooks
call directly.
"""

import contextlib
import logging
import signal
import sys
import traceback
from typing import TYPE_CHECKING

import jax
import ml_collections
from absl import flags
from etils import epath
from ml_collections import config_flags

from oneflow_jax.cli import help as help_texts
from oneflow_jax.cli.configuration import parse_config
from oneflow_jax.cli.flags import (
    ACCEPT_CHANGED_DATA,
    DELETE,
    EDIT,
    LOCAL,
    MODE,
    OUTPUT,
    PER_DEVICE_BATCH,
    PROGRAMS,
    PROMPT,
    READING_MODES,
    RUNNER,
    RUNNER_OPTION,
    TOPOLOGY,
    WORKDIR,
    check_mode,
)
from oneflow_jax.errors import Preempted, UserError
from oneflow_jax.runtime import (
    compilation_cache,
    distributed,
    host,
    metric_writer,
    plurals,
    run_lock,
    storage,
    workdir,
)

if TYPE_CHECKING:
    from oneflow_jax.data import layout as layouts

# Importing the modules of all modes takes several seconds. So each mode imports its modules when it
# runs, and a mistyped flag is reported at once.

EXIT_INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, whether or not the run saved a checkpoint."""

SINGLE_PROCESS_MODES = ("aot", "export", "import", "clean")
"""Modes that run in one process, without waiting for other hosts."""


def run(config: ml_collections.ConfigDict) -> None:
    """Run the mode that the flags select."""
    folder = storage.resolve_path(WORKDIR.value or f"runs/{config.name}", "--workdir")
    check_mode()
    # The next message takes seconds.
    if MODE.value in ("train", "prepare"):
        logging.info("The folder of the run is %s.", folder)
    elif MODE.value in READING_MODES and folder.exists():
        logging.info("Reading the run in %s.", folder)
    storage.check_folder(storage.resolve_path(OUTPUT.value or ".", "--output"), "--output")
    if MODE.value == "clean":
        _clean(config)
        return
    if MODE.value == "import":
        _import_language_model(config)
        return
    reads = MODE.value in READING_MODES
    if reads and not OUTPUT.value:
        run_lock.check_writable(folder)
    if MODE.value == "aot":
        _run_aot(config, folder)
        return
    from oneflow_jax.build import system as system_lib
    from oneflow_jax.build import values

    values.validate(config)
    config = workdir.load_choices(config, folder)
    if MODE.value in ("train", "prepare") and "models" not in config:
        values.validate_training(config)
    system_lib.check_platform(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(distributed.watch_peers(folder / workdir.CHECKPOINTS))
        with distributed.share_errors():
            stack.enter_context((run_lock.read_lock if reads else run_lock.lock)(folder))
        if not reads:
            storage.check_shared(folder, "--workdir")
        if "models" in config:  # Skip check_config: compare.run checks the folder itself.
            _run_comparison(config, folder)
            return
        with distributed.primary_first():
            workdir.check_config(folder, config, may_write=not reads)
        if "autoencoder" in config:
            _run_autoencoder(config, folder)
        else:
            _run_document_model(config, folder)


def _run_aot(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    from oneflow_jax.aot import run as aot_run
    from oneflow_jax.aot import topologies
    from oneflow_jax.build import values

    values.validate(config)
    if "models" in config or "autoencoder" in config:
        raise UserError(
            "--mode=aot: this configuration does not train a document model. Give another --config."
        )
    topologies.force_cpu_backend()
    with run_lock.lock(folder):
        aot_run.run(
            config,
            folder,
            TOPOLOGY.value,
            per_device_batch=PER_DEVICE_BATCH.value,
            program_names=PROGRAMS.value,
        )


def _import_language_model(config: ml_collections.ConfigDict) -> None:
    """Write the pretrained language model in `init_from` as an export to --output."""
    from oneflow_jax.build import import_run, values

    values.validate(config)
    output = storage.resolve_path(OUTPUT.value, "--output")
    _print(f"Export: {import_run.import_language_model(config, output)}")


def _clean(config: ml_collections.ConfigDict) -> None:
    """List prepared data that is no longer used, and delete it if --delete is given."""
    from oneflow_jax.build import stale_data, values

    if "data" not in config:
        raise UserError("--mode=clean: this configuration has no data.dir. Give another --config.")
    values.validate(config)
    storage.require_local(config.data.dir, "data.dir")
    items = stale_data.list_stale(config.data.dir)
    for item in items:
        _print(item)
    if DELETE.value:
        _print(f"Deleted: {stale_data.delete(items)} of {len(items)}, in {config.data.dir}")
    else:
        _print(f"Stale: {len(items)}, in {config.data.dir}. --delete deletes them.")


def _run_document_model(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    from oneflow_jax import evaluate, sample
    from oneflow_jax.build import choice_record, choices, custom_data, data, export_run
    from oneflow_jax.build import system as system_lib
    from oneflow_jax.data import overflow
    from oneflow_jax.training import loop

    if MODE.value in ("train", "prepare") and workdir.is_export(folder):
        raise UserError(
            f"--workdir={folder} is an export and cannot be trained. Give another --workdir, "
            f"and --config.init_from={folder} to initialize from this export."
        )
    if MODE.value in READING_MODES:
        workdir.check_trained(folder)
    _configure_process(config, folder)
    count = overflow.count_chunks
    if RUNNER.value != LOCAL:  # What follows finds the data up to date.
        beam = custom_data.prepare_on_runner(config, RUNNER.value, RUNNER_OPTION.value)
        count = beam.count_chunks
    config = choices.choose(config, folder, MODE.value)
    system = system_lib.system(
        config, folder, MODE.value, accept_changed_data=ACCEPT_CHANGED_DATA.value
    )
    if MODE.value == "export":
        output = storage.resolve_path(OUTPUT.value, "--output")
        _print(f"Export: {export_run.export(system, folder, output)}")
        return
    prompts = EDIT.value or PROMPT.value or config.sampling.prompts
    is_edit = bool(EDIT.value)
    sample.parse_prompts(system, prompts, edit=is_edit)  # Reports errors before training.
    if MODE.value in ("train", "evaluate"):
        evaluate.check_prompts(system)
    if MODE.value in ("train", "prepare"):
        workdir.save_config(folder, config)
    if MODE.value == "prepare":
        for split in data.ENCODED_SPLITS if custom_data.is_custom(config) else ():
            data.chunk_counts(config, system.layout, split, count)
        _print(data.prepare_data(config, system.layout))
    if MODE.value in ("train", "prepare") and custom_data.is_custom(config):
        _print(f"Data report: {_report_data(config, system.layout, folder)}")
    if MODE.value == "train":
        loop.run(
            system,
            folder,
            sample.PreviewWriter(system, folder) if config.sampling.preview_every else None,
        )
    output = _output_folder(folder)
    if MODE.value in ("train", "evaluate"):
        figures = evaluate.run(system, folder, output)
        _print(evaluate.format_table(figures, evaluate.find_overfitting(system, folder)))
        if chosen := choice_record.format_table(choice_record.read(folder, config)):
            _print(chosen)
        _print(f"Metrics: {output / workdir.EVALUATION}")
    if MODE.value in ("train", "sample"):
        _print(f"Page: {sample.run(system, folder, prompts, edit=is_edit, output=output)}")


def _output_folder(folder: epath.Path) -> epath.Path:
    """Return the folder that pages and metrics are written to, and create it."""
    if not OUTPUT.value:
        return folder
    output = storage.resolve_path(OUTPUT.value, "--output")
    output.mkdir(parents=True, exist_ok=True)
    storage.mark_folder(output)
    return output


def _report_data(
    config: ml_collections.ConfigDict, layout: "layouts.Layout", folder: epath.Path
) -> epath.Path:
    """Print notices about the user's data, and write the data report; return its path."""
    from oneflow_jax.build import choice_record, custom_data, data
    from oneflow_jax.data import overflow
    from oneflow_jax.data.custom import manifest, notices, summary
    from oneflow_jax.viewer import data_report

    source = data.open_split(config, "train")
    counts = {split: data.chunk_counts(config, layout, split) for split in manifest.SPLITS}
    usage = summary.summarize_slots(layout.length, config.data.overflow, counts)
    usage["texts"] = overflow.measure_texts(source, layout, summary.MAX_MEASURED_DOCUMENTS)
    usage["shapes"] = overflow.count_shapes(source, layout, summary.MAX_MEASURED_DOCUMENTS)
    prepared = custom_data.open_prepared(config)
    sentences = notices.list_notices(prepared.stats, usage)
    for sentence in sentences:
        _print(f"Notice: {sentence}")
    figures = summary.summarize_data(config.source.path, prepared, usage, sentences)
    figures["choices"] = choice_record.read(folder, config)
    return data_report.write_report(figures, source, folder)


def _run_autoencoder(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    from oneflow_jax.autoencoder_training import run as autoencoder_run
    from oneflow_jax.build import autoencoder_system

    if EDIT.value:
        raise UserError("--edit: this configuration trains a codec. Only document models can edit.")
    if RUNNER.value != LOCAL:
        raise UserError(f"--runner={RUNNER.value}: a codec takes no runner. Leave it out.")
    if PROMPT.value and MODE.value != "sample":
        raise UserError("--prompt: for a codec, it is valid with --mode=sample only.")
    if MODE.value == "export":
        raise UserError(
            f"--mode=export: a codec needs no export. Use {folder / workdir.CODEC} directly."
        )
    _configure_process(config, folder)
    system = autoencoder_system.system(config, for_training=MODE.value == "train")
    if MODE.value in ("train", "prepare"):
        with distributed.primary_first():
            count = len(system.source("train"))  # This reports errors before anything is written.
        workdir.save_config(folder, config)
    if MODE.value == "prepare":
        _print(
            f"Prepared: {plurals.format_count(count, 'document')} of 'train', in {config.data.dir}"
        )
    if MODE.value == "train":
        autoencoder_run.train_autoencoder(system, folder)
    output = _output_folder(folder)
    if MODE.value in ("train", "evaluate"):
        _print(autoencoder_run.format_table(autoencoder_run.evaluate(system, folder, output)))
        _print(f"Metrics: {output / workdir.EVALUATION}")
        _print(f"Page: {output / workdir.SAMPLES_PAGE}")
    if MODE.value == "sample":
        _print(f"Page: {autoencoder_run.reconstruct_prompts(system, folder, PROMPT.value, output)}")


def _configure_process(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Validate `data.dir` and the settings of the training loop; enable a compilation cache."""
    from oneflow_jax.build.loop_config import make_loop_config

    storage.require_local(config.data.dir, "data.dir")
    make_loop_config(config)  # Only to report wrong settings before anything is computed.
    if config.compilation_cache and MODE.value not in READING_MODES:
        compilation_cache.enable(folder / workdir.COMPILATION_CACHE)


def _run_comparison(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    from oneflow_jax.compare import run as compare_run

    if MODE.value != "train" or PROMPT.value or EDIT.value:
        raise UserError(
            "This configuration compares paradigms in one command: give no --mode, --prompt or "
            "--edit. To sample from one of its runs, give the run's folder as --workdir."
        )
    if distributed.is_multi_process():
        raise UserError(
            f"This configuration compares paradigms in one process, not in {jax.process_count()}. "
            f"Unset {', '.join(distributed.ENV_VARS)}, or run it with srun --ntasks=1, on one host."
        )
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    # The comparison page shows `config.command`. It is saved with the configuration, so the page of
    # a later call without --config still shows the overrides of this call.
    config.command += "".join(f' --config.{name}="{value}"' for name, value in overrides.items())
    _print(f"Page: {compare_run.run(config, folder)}")
    _print(f"Metrics: {folder / compare_run.METRICS_FILE}")


def _print(message: object) -> None:
    """Print a message in the primary process."""
    if distributed.is_primary():
        print(message)


def main(argv: list[str] | None = None, required_key: str = "") -> None:
    """Run the command line; print each `UserError` as a message without a traceback.

    Args:
        argv: the program and its arguments; by default `sys.argv`.
        required_key: key whose value must not be empty in the configuration.
    """
    argv = argv or sys.argv
    if {"-h", "--help"} & set(argv):
        print(help_texts.format_help())
        return
    metric_writer.setup_logging()
    try:
        host.configure()
        config = parse_config(argv)
        if required_key and not config.get(required_key):
            raise UserError(
                f"{required_key} is empty or missing in this configuration, and the command needs "
                f"it. Set it with --config.{required_key}=VALUE, or give another --config."
            )
        if MODE.value not in SINGLE_PROCESS_MODES:
            distributed.initialize()
        if not distributed.is_primary():
            metric_writer.set_quiet()
        run(config)
    except UserError as error:
        distributed.exit_process(f"error: {error}", together=error.in_all_processes)
    except Preempted as stopped:
        _print(stopped)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        message = "\nstopped; the same command resumes from the newest checkpoint, if there is one"
        distributed.exit_process(message, EXIT_INTERRUPTED, immediately=True)
    except Exception:
        if not distributed.is_multi_process():
            raise
        distributed.exit_process(traceback.format_exc())


if __name__ == "__main__":
    main()
