"""The command line: `python -m oneflow_jax.main --config=configs/quickstart.py`.

Kept short: what is done is in `train`, `evaluate` and `sample`, which tests and notebooks call.
"""

import re
import signal
import sys
import traceback

import jax
import ml_collections
from absl import app, flags
from etils import epath
from ml_collections import config_flags

from oneflow_jax import evaluate, sample
from oneflow_jax.aot import run as aot_run
from oneflow_jax.aot import topologies
from oneflow_jax.autoencoder_training import run as autoencoder_run
from oneflow_jax.autoencoder_training import system as autoencoder_system
from oneflow_jax.build import data
from oneflow_jax.build import system as system_lib
from oneflow_jax.compare import run as compare_run
from oneflow_jax.data import layout as layouts
from oneflow_jax.data.custom import manifest, prepare
from oneflow_jax.errors import Preempted, UserError
from oneflow_jax.runtime import distributed, host, metric_writer, storage, workdir
from oneflow_jax.training import checkpoint, export, loop, profiler, train_state
from oneflow_jax.viewer import data_report

EXIT_PREEMPTED = 128 + signal.SIGTERM
"""Exit code of a run that was told to leave: it is not finished, and supervisors start it again."""

SINGLE_PROCESS_MODES = ("compile", "release")
"""Modes that are one process's, where a host of a pod does not wait for the others."""

MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ("train", "evaluate", "sample", "prepare", "release", "compile"),
    "train: prepare, train (or go on), evaluate and sample; the others do that part alone. "
    "release: keep in --into what sampling needs. "
    "compile: what training and sampling need, and take, on TPUs that are not here.",
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; runs/<name of the config> if left out."
)
PROMPT = flags.DEFINE_multi_string(
    "prompt",
    [],
    'A document with gaps, e.g. "a picture of a tiger: <image>", "<image:tiger.png> <text>"; may '
    "be given several times.",
)
EDIT = flags.DEFINE_multi_string(
    "revise",
    [],
    'A finished document to look over, e.g. "a picture of a tiger: <image:fox.png>": the edits are '
    "listed; may be given several times, in place of --prompt.",
)
OUTPUT = flags.DEFINE_string("into", None, "Folder that --mode=release writes.")
TOPOLOGY = flags.DEFINE_list(
    "topology", [], "TPU slices to compile for, as in v4-64,2xv4-128; or 'host', for this machine."
)
PER_DEVICE_BATCH = flags.DEFINE_integer(
    "rows_per_chip", None, "Compile for a batch of so many rows on each chip.", lower_bound=1
)
PROGRAMS = flags.DEFINE_multi_enum(
    "program", aot_run.PROGRAMS, aot_run.PROGRAMS, "What to compile; both if left out."
)


def run(config: ml_collections.ConfigDict) -> None:
    """Does what the flags say."""
    folder = storage.resolve_path(WORKDIR.value or f"runs/{config.name}", "--workdir")
    if (MODE.value == "release") != bool(OUTPUT.value):
        raise UserError("--mode=release and --into=FOLDER, which it writes, go together.")
    if MODE.value == "compile":
        _run_aot(config, folder)
        return
    system_lib.check_platform(config)
    with distributed.watch_peers(folder / workdir.CHECKPOINTS), workdir.lock(folder):
        if "contestants" in config:  # It holds its folder against what is asked for itself.
            _run_comparison(config, folder)
            return
        with distributed.primary_first():
            workdir.check_config(folder, config)
        if "autoencoder" in config:
            _run_autoencoder(config, folder)
        else:
            _run_document_model(config, folder)


def _run_aot(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    if "contestants" in config or "autoencoder" in config:
        raise UserError("--mode=compile is for configurations of models of documents.")
    topologies.force_cpu_backend()
    with workdir.lock(folder):
        aot_run.run(
            config,
            folder,
            TOPOLOGY.value,
            per_device_batch=PER_DEVICE_BATCH.value,
            program_names=PROGRAMS.value,
        )


def _run_document_model(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    if MODE.value in ("train", "prepare") and workdir.is_export(folder):
        raise UserError(
            f"--workdir={folder} is a release, and nobody trains there: give another --workdir, "
            f"and --config.start={folder} to begin from it."
        )
    _configure_process(config, folder)
    system = system_lib.system(config, folder)
    if MODE.value == "release":
        _export(system, folder)
        return
    if PROMPT.value and EDIT.value:
        raise UserError("--prompt and --revise: give one or the other.")
    prompts = EDIT.value or PROMPT.value or config.sampling.prompts
    revise = bool(EDIT.value)
    # A mistake in them is told before training, not after.
    sample.parse_prompts(system, prompts, edit=revise)
    if MODE.value in ("train", "evaluate"):
        evaluate.check_prompts(system)
    if MODE.value in ("train", "prepare"):
        workdir.save_config(folder, config)
    if MODE.value == "prepare":
        _print(data.prepare_data(config, system.layout))
    if MODE.value in ("train", "prepare") and config.source.name == manifest.DATASET_NAME:
        _print(f"Intake: {_report_data(config, system.layout, folder)}")
    if MODE.value == "train":
        loop.run(
            system, folder, sample.PreviewWriter(system, folder) if config.sampling.every else None
        )
    if MODE.value in ("train", "evaluate"):
        figures = evaluate.run(system, folder)
        _print(evaluate.format_table(figures))
        _print(f"Figures: {folder / workdir.EVALUATION}")
    if MODE.value in ("train", "sample"):
        _print(f"Page: {sample.run(system, folder, prompts, edit=revise)}")


def _export(system: system_lib.System, folder: epath.Path) -> None:
    like = train_state.abstract_state(system).ema
    _print(f"Release: {export.export(system.config, folder, epath.Path(OUTPUT.value), like)}")


def _report_data(
    config: ml_collections.ConfigDict, layout: layouts.Layout, folder: epath.Path
) -> epath.Path:
    """Write what became of the user's data; return the page's path."""
    source = data.open_split(config, "train")  # Prepared now, if need be.
    settings = prepare.parse_config(config.source)
    counts = {split: data.chunk_counts(config, layout, split) for split in manifest.SPLITS}
    return data_report.write_report(
        settings.path,
        prepare.dataset_dir(settings, config.data.dir),
        source,
        data_report.summarize_slots(layout.length, config.data.long, counts),
        folder,
    )


def _run_autoencoder(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    if EDIT.value:
        raise UserError("--revise is for models of documents; this configuration trains a codec.")
    if PROMPT.value and MODE.value != "sample":
        raise UserError("--prompt is for --mode=sample, when this configuration trains a codec.")
    if MODE.value == "release":
        raise UserError(f"A codec is given away as it is: {folder / workdir.CODEC}.")
    _configure_process(config, folder)
    system = autoencoder_system.system(config, for_training=MODE.value == "train")
    if MODE.value in ("train", "prepare"):
        with distributed.primary_first():
            count = len(system.source("train"))  # A mistake is told before anything is kept.
        workdir.save_config(folder, config)
    if MODE.value == "prepare":
        _print(f"Prepared: {count} documents of 'train', in {config.data.dir}")
    if MODE.value == "train":
        autoencoder_run.train_autoencoder(system, folder)
    if MODE.value in ("train", "evaluate"):
        _print(autoencoder_run.format_table(autoencoder_run.evaluate(system, folder)))
        _print(f"Figures: {folder / workdir.EVALUATION}")
        _print(f"Page: {folder / workdir.SAMPLES_PAGE}")
    if MODE.value == "sample":
        _print(f"Page: {autoencoder_run.reconstruct_prompts(system, folder, PROMPT.value)}")


def _configure_process(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """What a run wants of its process, before anything is compiled."""
    storage.require_local(config.data.dir, "data.dir")
    profiler.validate_range(config.profile, config.steps)
    checkpoint.validate(config.checkpoint)
    if config.keep_compiled:
        host.enable_compilation_cache(folder / workdir.COMPILATION_CACHE)


def _run_comparison(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    if MODE.value != "train" or PROMPT.value or EDIT.value:
        raise UserError(
            "This configuration compares paradigms, all in one go: give no --mode, --prompt or "
            "--revise. Its runs are folders of their own: give one of them as --workdir."
        )
    if distributed.is_multi_process():
        raise UserError(
            f"This configuration compares paradigms in one process, and is run in "
            f"{jax.process_count()}: "
            f"unset {', '.join(distributed.ENV_VARS)}; run it on one host."
        )
    given = config_flags.get_override_values(flags.FLAGS["config"])
    # Kept with the configuration: of a later call without --config they are part too.
    config.command += "".join(f' --config.{name}="{value}"' for name, value in given.items())
    _print(f"Page: {compare_run.run(config, folder)}")
    _print(f"Figures: {folder / compare_run.METRICS_FILE}")


def parse_config(argv: list[str]) -> ml_collections.ConfigDict:
    """The configuration that the flags give; without --config, that of the run in --workdir.

    Raises:
        UserError: an unknown flag or configuration key, or a value of the wrong type.
    """
    app.define_help_flags()
    try:
        rest = flags.FLAGS(argv, known_only=True)
        if WORKDIR.value is None or any(re.match("--?config(=|$)", arg) for arg in rest):
            config_flags.DEFINE_config_file(
                "config", help_string="A file of configs/.", sys_argv=argv
            )
            flags.mark_flag_as_required("config")
        else:
            saved = workdir.load_config(storage.resolve_path(WORKDIR.value, "--workdir"))
            config_flags.DEFINE_config_dict("config", saved, sys_argv=argv)
        rest = flags.FLAGS(rest)
        config = flags.FLAGS["config"].value.lock()  # A missing file is told at the first touch.
    except (AttributeError, KeyError) as error:
        told = getattr(error.args[0], "args", error.args)[0]  # ml_collections wraps one in another.
        raise UserError(
            f"--config has no key {' '.join(told.split())}. configs/common.py has them all, and "
            "configs/codec.py those of codecs."
        ) from error
    except (flags.Error, OSError, TypeError, ValueError) as error:
        first, *_, last = [*str(error).strip().splitlines()] * 2
        raise UserError(first if first == last else f"{first} {last.strip()}") from error
    if len(rest) > 1:
        raise UserError(f"Unknown argument {rest[1]!r}: flags begin with --.")
    return config


def _print(message: object) -> None:
    """Tells people; one process does for all."""
    if distributed.is_primary():
        print(message)


def main() -> None:
    """Runs, and says a user's mistake in one message, without a traceback."""
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
        told = "\nstopped; the same command goes on from the newest checkpoint, if there is one"
        distributed.exit_process(told, immediately=True)
    except Exception:
        if not distributed.is_multi_process():
            raise
        distributed.exit_process(traceback.format_exc())


if __name__ == "__main__":
    main()
