"""Flags of the command line, shared by `oneflow` and `python -m oneflow_jax.main`."""

from absl import flags

from oneflow_jax import aot
from oneflow_jax.errors import UserError

LOCAL = "local"
"""Value of --runner for the engine without Apache Beam."""

MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ("train", "evaluate", "sample", "prepare", "clean", "export", "import", "aot"),
    '"train" prepares the data, trains or resumes, evaluates and samples. "prepare" only prepares '
    'the data and the tokenizer. "evaluate" only measures a trained run. "sample" only samples '
    'from a trained run. "clean" lists the prepared data in data.dir that is no longer used; it '
    'deletes this data only if --delete is given. "export" writes the files that sampling needs '
    'to the folder --output. "import" writes such files for the language model in init_from. '
    '"aot" compiles the programs for TPUs or GPUs that are not attached, and reports their memory '
    "and time.",
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default: runs/<name of the config>."
)
PROMPT = flags.DEFINE_multi_string(
    "prompt",
    [],
    'A document with gaps to fill, e.g. "a picture of a tiger: <image>" or "<image:tiger.png> '
    '<text>". Repeat the flag for several documents.',
)
EDIT = flags.DEFINE_multi_string(
    "edit",
    [],
    'A finished document to edit, e.g. "a picture of a tiger: <image:fox.png>", instead of '
    "--prompt. The edits are logged. Repeat the flag for several documents.",
)
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder that --mode=export and --mode=import write. With --mode=sample and --mode=evaluate: "
    "folder for pages and metrics instead of --workdir.",
)
DELETE = flags.DEFINE_bool("delete", False, "With --mode=clean: delete the listed data.")
ACCEPT_CHANGED_DATA = flags.DEFINE_bool(
    "accept_changed_data",
    False,
    "Continue a run although its data (the files of source.path, or the packages of a built-in "
    "data set) differs from that it was trained on.",
)
RUNNER = flags.DEFINE_enum(
    "runner",
    LOCAL,
    (LOCAL, "DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner"),
    'With --mode=prepare: what prepares own data. "local" is this machine. The others are runners '
    "of Apache Beam; docs/data_at_scale.md says what each needs.",
)
RUNNER_OPTION = flags.DEFINE_multi_string(
    "runner_option",
    [],
    "NAME=VALUE: an option of the runner, e.g. region=europe-west4. Repeat the flag for several.",
)
TOPOLOGY = flags.DEFINE_list(
    "topology",
    [],
    "TPU slices or GPU nodes to compile for, e.g. v4-64,2xv4-128 or h100-8; or 'host', for this "
    "machine. Default: aot_topologies of the configuration.",
)
PER_DEVICE_BATCH = flags.DEFINE_integer(
    "per_device_batch",
    None,
    "With --mode=aot: rows of the batch per chip; default: batch_size of the configuration.",
    lower_bound=1,
)
PROGRAMS = flags.DEFINE_multi_enum(
    "program",
    aot.PROGRAMS,
    aot.PROGRAMS,
    f"Program to compile: {' or '.join(aot.PROGRAMS)}. Repeat the flag for several; default: all.",
)


READING_MODES = ("evaluate", "sample", "export")
"""Modes that read a trained run, and accept --output, the folder for their results."""


def check_mode() -> None:
    """Check that the mode accepts the other flags.

    Raises:
        UserError: --output, --runner or --delete is given to a mode that does not accept it,
            --mode=export or --mode=import lacks --output, or flags are given that exclude each
            other.
    """
    if OUTPUT.value and MODE.value not in (*READING_MODES, "import"):
        raise UserError(
            f"--output={OUTPUT.value}: --mode={MODE.value} does not accept it. Leave it out."
        )
    if MODE.value in ("export", "import") and not OUTPUT.value:
        raise UserError(f"--mode={MODE.value} requires --output=FOLDER.")
    if RUNNER.value != LOCAL and MODE.value != "prepare":
        raise UserError(
            f"--runner={RUNNER.value}: --mode={MODE.value} does not accept it. Prepare the data "
            "with --mode=prepare first; --mode=train then finds it."
        )
    if RUNNER_OPTION.value and RUNNER.value == LOCAL:
        raise UserError(
            f"--runner_option={RUNNER_OPTION.value[0]}: only runners of Apache Beam have options. "
            "Give --runner, or leave out --runner_option."
        )
    if DELETE.value and MODE.value != "clean":
        raise UserError("--delete is valid with --mode=clean only.")
    if PROMPT.value and EDIT.value:
        raise UserError("--prompt and --edit exclude each other: give one or the other.")


def check_paths() -> None:
    """Check that no path is empty, as in `--workdir=$DIR` if the shell variable is not set.

    Raises:
        UserError: --workdir or --output is empty.
    """
    for flag in (WORKDIR, OUTPUT):
        if flag.value is not None and not flag.value.strip():
            raise UserError(
                f"--{flag.name}={flag.value}: the path is empty. Give a folder, or leave the flag "
                "out."
            )


def describe(name: str) -> str:
    """Return the help of a flag, without the sentence that absl adds for repeatable flags."""
    return flags.FLAGS[name].help.partition(";\n")[0]
