"""The command line: `python -m oneflow_jax.main --config=configs/quickstart.py`.

This module only dispatches: the work is done in `training`, `evaluate` and `sample`, which tests
and notebooks call directly.
"""

import re
import signal
import sys
import traceback
from typing import TYPE_CHECKING

import jax
import ml_collections
from absl import app, flags
from etils import epath
from ml_collections import config_flags

from oneflow_jax import aot
from oneflow_jax.errors import Preempted, UserError
from oneflow_jax.runtime import distributed, host, metric_writer, renamed_keys, storage, workdir

if TYPE_CHECKING:
    from oneflow_jax.build import system as system_lib
    from oneflow_jax.data import layout as layouts

# Each mode imports its modules when it runs, so that a mistyped flag is reported at once: importing
# the modules of all modes takes several seconds.

EXIT_PREEMPTED = 128 + signal.SIGTERM
"""Exit code of a preempted run. It is not 0, so that supervisors restart the unfinished run."""

SINGLE_PROCESS_MODES = ("aot", "export", "clean")
"""Modes that run in one process, without waiting for other hosts."""

MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ("train", "evaluate", "sample", "prepare", "clean", "export", "aot"),
    "train: prepare, train (or resume), evaluate and sample. prepare, evaluate, sample: only that "
    "part. clean: list prepared data in data.dir whose source has changed. export: write to "
    "--output the files that sampling needs. aot: compile for TPUs that are not attached, and "
    "report memory and time.",
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default: runs/<name of the config>."
)
PROMPT = flags.DEFINE_multi_string(
    "prompt",
    [],
    'A document with gaps to fill, e.g. "a picture of a tiger: <image>" or "<image:tiger.png> '
    '<text>"; may be given several times.',
)
EDIT = flags.DEFINE_multi_string(
    "edit",
    [],
    'A finished document to edit, e.g. "a picture of a tiger: <image:fox.png>", in place of '
    "--prompt; the edits are listed; may be given several times.",
)
OUTPUT = flags.DEFINE_string("output", None, "Folder that --mode=export writes.")
DELETE = flags.DEFINE_bool("delete", False, "With --mode=clean: delete what is listed.")
ACCEPT_CHANGED_DATA = flags.DEFINE_bool(
    "accept_changed_data",
    False,
    "Go on with a run although the files of source.path are not those that it was trained on.",
)
TOPOLOGY = flags.DEFINE_list(
    "topology", [], "TPU slices to compile for, e.g. v4-64,2xv4-128; or 'host', for this machine."
)
PER_DEVICE_BATCH = flags.DEFINE_integer(
    "per_device_batch", None, "Rows of the batch on each chip to compile for.", lower_bound=1
)
PROGRAMS = flags.DEFINE_multi_enum(
    "program", aot.PROGRAMS, aot.PROGRAMS, "Programs to compile; default: both."
)


def run(config: ml_collections.ConfigDict) -> None:
    """Run the mode that the flags select."""
    folder = storage.resolve_path(WORKDIR.value or f"runs/{config.name}", "--workdir")
    if (MODE.value == "export") != bool(OUTPUT.value):
        raise UserError("--mode=export requires --output=FOLDER; no other mode accepts it.")
    if DELETE.value and MODE.value != "clean":
        raise UserError("--delete is valid with --mode=clean only.")
    if MODE.value == "clean":
        _clean(config)
        return
    if MODE.value == "aot":
        _run_aot(config, folder)
        return
    from oneflow_jax.build import system as system_lib

    system_lib.check_platform(config)
    with distributed.watch_peers(folder / workdir.CHECKPOINTS), workdir.lock(folder):
        if "models" in config:  # compare.run checks the configuration of its folder.
            _run_comparison(config, folder)
            return
        with distributed.primary_first():
            workdir.check_config(folder, config)
        if "autoencoder" in config:
            _run_autoencoder(config, folder)
        else:
            _run_document_model(config, folder)


def _run_aot(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    from oneflow_jax.aot import run as aot_run
    from oneflow_jax.aot import topologies

    if "models" in config or "autoencoder" in config:
        raise UserError("--mode=aot: this configuration does not train a document model.")
    topologies.force_cpu_backend()
    with workdir.lock(folder):
        aot_run.run(
            config,
            folder,
            TOPOLOGY.value,
            per_device_batch=PER_DEVICE_BATCH.value,
            program_names=PROGRAMS.value,
        )


def _clean(config: ml_collections.ConfigDict) -> None:
    """List prepared data that nothing uses any more, and delete it if the flag says so."""
    from oneflow_jax.build import stale_data

    if "data" not in config:
        raise UserError("--mode=clean: this configuration has no data.dir. Give another --config.")
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
    from oneflow_jax.build import custom_data, data
    from oneflow_jax.build import system as system_lib
    from oneflow_jax.training import loop

    if MODE.value in ("train", "prepare") and workdir.is_export(folder):
        raise UserError(
            f"--workdir={folder} is an export and cannot be trained. Give another --workdir, "
            f"and --config.init_from={folder} to initialize from it."
        )
    _configure_process(config, folder)
    system = system_lib.system(
        config, folder, MODE.value, accept_changed_data=ACCEPT_CHANGED_DATA.value
    )
    if MODE.value == "export":
        _export(system, folder)
        return
    if PROMPT.value and EDIT.value:
        raise UserError("--prompt and --edit exclude each other: give one or the other.")
    prompts = EDIT.value or PROMPT.value or config.sampling.prompts
    revise = bool(EDIT.value)
    # Errors in the prompts are reported before training.
    sample.parse_prompts(system, prompts, edit=revise)
    if MODE.value in ("train", "evaluate"):
        evaluate.check_prompts(system)
    if MODE.value in ("train", "prepare"):
        workdir.save_config(folder, config)
    if MODE.value == "prepare":
        _print(data.prepare_data(config, system.layout))
    if MODE.value in ("train", "prepare") and custom_data.is_custom(config):
        _print(f"Data report: {_report_data(config, system.layout, folder)}")
    if MODE.value == "train":
        loop.run(
            system,
            folder,
            sample.PreviewWriter(system, folder) if config.sampling.preview_every else None,
        )
    if MODE.value in ("train", "evaluate"):
        figures = evaluate.run(system, folder)
        _print(evaluate.format_table(figures))
        _print(f"Metrics: {folder / workdir.EVALUATION}")
    if MODE.value in ("train", "sample"):
        _print(f"Page: {sample.run(system, folder, prompts, edit=revise)}")


def _export(system: "system_lib.System", folder: epath.Path) -> None:
    from oneflow_jax.training import export, train_state

    like = train_state.abstract_state(system).ema
    _print(f"Export: {export.export(system.config, folder, epath.Path(OUTPUT.value), like)}")


def _report_data(
    config: ml_collections.ConfigDict, layout: "layouts.Layout", folder: epath.Path
) -> epath.Path:
    """Write the report on the user's data; return the path of its page."""
    from oneflow_jax.build import custom_data, data
    from oneflow_jax.data.custom import manifest
    from oneflow_jax.viewer import data_report

    source = data.open_split(config, "train")
    counts = {split: data.chunk_counts(config, layout, split) for split in manifest.SPLITS}
    return data_report.write_report(
        config.source.path,
        custom_data.open_prepared(config).folder,
        source,
        data_report.summarize_slots(layout.length, config.data.overflow, counts),
        folder,
    )


def _run_autoencoder(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    from oneflow_jax.autoencoder_training import run as autoencoder_run
    from oneflow_jax.build import autoencoder_system

    if EDIT.value:
        raise UserError("--edit: this configuration trains a codec. Give it with a document model.")
    if PROMPT.value and MODE.value != "sample":
        raise UserError("--prompt: for a codec, it is valid with --mode=sample only.")
    if MODE.value == "export":
        raise UserError(
            f"--mode=export: a codec needs none. Use {folder / workdir.CODEC} as it is."
        )
    _configure_process(config, folder)
    system = autoencoder_system.system(config, for_training=MODE.value == "train")
    if MODE.value in ("train", "prepare"):
        with distributed.primary_first():
            count = len(system.source("train"))  # Errors are reported before anything is written.
        workdir.save_config(folder, config)
    if MODE.value == "prepare":
        _print(f"Prepared: {count} documents of 'train', in {config.data.dir}")
    if MODE.value == "train":
        autoencoder_run.train_autoencoder(system, folder)
    if MODE.value in ("train", "evaluate"):
        _print(autoencoder_run.format_table(autoencoder_run.evaluate(system, folder)))
        _print(f"Metrics: {folder / workdir.EVALUATION}")
        _print(f"Page: {folder / workdir.SAMPLES_PAGE}")
    if MODE.value == "sample":
        _print(f"Page: {autoencoder_run.reconstruct_prompts(system, folder, PROMPT.value)}")


def _configure_process(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Validate process-level settings, and enable the compilation cache."""
    from oneflow_jax.build.loop_config import make_loop_config

    storage.require_local(config.data.dir, "data.dir")
    make_loop_config(config)  # Report mistakes before anything is computed.
    if config.compilation_cache:
        host.enable_compilation_cache(folder / workdir.COMPILATION_CACHE)


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
            f"Unset {', '.join(distributed.ENV_VARS)}, and run it on one host."
        )
    given = config_flags.get_override_values(flags.FLAGS["config"])
    # The page shows this command. It is saved with the configuration, so that a later call without
    # --config still shows the overrides.
    config.command += "".join(f' --config.{name}="{value}"' for name, value in given.items())
    _print(f"Page: {compare_run.run(config, folder)}")
    _print(f"Metrics: {folder / compare_run.METRICS_FILE}")


def parse_config(argv: list[str]) -> ml_collections.ConfigDict:
    """Parse the configuration from the flags; without --config, load that of the run in --workdir.

    Raises:
        UserError: an unknown flag or configuration key, or a value of the wrong type.
    """
    app.define_help_flags()
    renamed_keys.check_flags(argv)
    try:
        rest = flags.FLAGS(argv, known_only=True)
        if WORKDIR.value is None or any(re.match("--?config(=|$)", arg) for arg in rest):
            config_flags.DEFINE_config_file(
                "config", help_string="File of configs/, e.g. configs/own.py.", sys_argv=argv
            )
            flags.mark_flag_as_required("config")
        else:
            saved = workdir.load_config(storage.resolve_path(WORKDIR.value, "--workdir"))
            config_flags.DEFINE_config_dict("config", saved, sys_argv=argv)
        rest = flags.FLAGS(rest)
        config = flags.FLAGS["config"].value.lock()  # A missing file raises here.
    except (AttributeError, KeyError) as error:
        told = getattr(error.args[0], "args", error.args)[0]  # ml_collections nests errors.
        raise UserError(
            f"--config has no key {' '.join(told.split())}. configs/common.py lists all keys, and "
            "configs/codec.py those of codecs."
        ) from error
    except (flags.Error, OSError, TypeError, ValueError) as error:
        first, *_, last = [*str(error).strip().splitlines()] * 2
        raise UserError(first if first == last else f"{first} {last.strip()}") from error
    if len(rest) > 1:
        raise UserError(f"Unknown argument {rest[1]!r}. Flags start with --.")
    return config


def _print(message: object) -> None:
    """Print a message in the primary process."""
    if distributed.is_primary():
        print(message)


def main() -> None:
    """Run the command line; print each `UserError` as a message without a traceback."""
    metric_writer.setup_logging()
    try:
        host.configure_malloc()
        config = parse_config(sys.argv)
        if MODE.value not in SINGLE_PROCESS_MODES:
            distributed.initialize()
        if not distributed.is_primary():
            metric_writer.set_quiet()
        run(config)
    except UserError as error:
        distributed.exit_process(f"error: {error}")
    except Preempted as stopped:
        _print(stopped)
        sys.exit(EXIT_PREEMPTED)
    except KeyboardInterrupt:
        told = "\nstopped; the same command resumes from the newest checkpoint, if there is one"
        distributed.exit_process(told, immediately=True)
    except Exception:
        if not distributed.is_multi_process():
            raise
        distributed.exit_process(traceback.format_exc())


if __name__ == "__main__":
    main()
