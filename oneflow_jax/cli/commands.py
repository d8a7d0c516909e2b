"""The commands of `oneflow`, with their summaries, flags and examples."""

import dataclasses
from collections.abc import Callable, Sequence

from oneflow_jax.cli import config_names, finetune_arguments, import_arguments
from oneflow_jax.errors import UserError

PRETRAINED = "--workdir=runs/pretrained"
"""Default run of `oneflow sample`: a folder to which the package's pretrained model is copied."""

CONFIG = "--config=NAME"
KEYS = "--config.KEY=VALUE"
FLAGS = {
    CONFIG: "Configuration: a name of `oneflow configs`, e.g. quickstart or quickstart:edit_flow, "
    "or the path of a .py file. Default: the configuration of the run in --workdir.",
    KEYS: "New value of one key of the configuration. Repeat the flag for several keys. `oneflow "
    "configs NAME` shows all keys.",
    "WORKDIR": "Folder of a run or export that the page offers first. Several folders are allowed. "
    "The page also offers the package's model, and the runs and exports in the folder runs.",
    "--port": "Port; default: 7860 for `oneflow demo`, 8000 for `oneflow serve`.",
    "--model": "NAME=FOLDER: a name for requests, and the folder of a run or of an export. Repeat "
    "the flag for several models; the first one is the default. Default: the package's model, "
    "with the name shipped.",
    "--host": "Address to listen on; default: 127.0.0.1, which only this machine can reach.",
    "--token-file": "File with the token that clients must send. Any other host needs it.",
    "FOLDER": "Folder of your documents, in one of the layouts of docs/own_data.md.",
    "MODEL": "Folder of a language model in Hugging Face's layout, with config.json, "
    "model.safetensors and tokenizer.json.",
    "--from": "Start model: the folder of a run or of an export; default: shipped, the package's "
    "model.",
    "--minutes": "Minutes of training steps, from which the number of steps follows. Default: 10 "
    "with FOLDER.",
    "NAME": "Name of the configuration whose keys and values are shown.",
}
"""Help texts of the flags that are not defined in `cli.flags`."""


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of `oneflow`.

    Attributes:
        summary: what the command does, in one line.
        flags: the main flags: keys of `FLAGS`, or names in `cli.flags`.
        examples: examples of arguments, each without `oneflow COMMAND`.
        details: sentences below the summary in the help of the command.
        mode: the value of --mode that runs the command; None if `oneflow_jax.main` does not run it.
        defaults: arguments to add if neither --config nor --workdir is given.
        required_key: key whose value must not be empty in the configuration.
        convert: function that replaces the command's own arguments by those of `oneflow_jax.main`.
    """

    summary: str
    flags: tuple[str, ...]
    examples: tuple[str, ...]
    details: str = ""
    mode: str | None = None
    defaults: tuple[str, ...] = ()
    required_key: str = ""
    convert: Callable[[Sequence[str]], list[str]] = list


COMMANDS = {
    "train": Command(
        "Prepare the data, train or resume, evaluate, and write a page of samples.",
        (CONFIG, KEYS, "workdir", "prompt", "accept_changed_data"),
        (
            "--config=quickstart",
            "--config=own --config.source.path=FOLDER",
            "--config=digits:velocity --workdir=runs/mine --config.optimizer.learning_rate=1e-3",
        ),
        "The same command resumes an interrupted run from its newest checkpoint.",
        mode="train",
    ),
    "finetune": Command(
        "Continue the training of a model on your own folder of images and texts.",
        ("FOLDER", "--from", "--minutes", KEYS, "workdir", "prompt", "accept_changed_data"),
        (
            "FOLDER --from=shipped --workdir=runs/finetuned",
            "FOLDER --minutes=10 --config.finetune.lora_rank=8",
            "--workdir=runs/finetuned",
            "--config=digits --config.init_from=runs/digits --workdir=runs/finetuned",
        ),
        "The run takes codec, network and paradigm from the start model, and adds tokens for words "
        "that its tokenizer lacks. The same command resumes an interrupted run. With --config "
        "instead of FOLDER, the run has that configuration, and init_from is the folder of a run "
        "with equal sizes and the same tokenizer.",
        mode="train",
        required_key="init_from",
        convert=finetune_arguments.convert,
    ),
    "prepare": Command(
        "Prepare the data and the tokenizer, without training.",
        (CONFIG, KEYS, "workdir", "runner", "runner_option"),
        (
            "--config=own --config.source.path=FOLDER",
            "--config=own --config.source.path=FOLDER --runner=DirectRunner",
        ),
        mode="prepare",
    ),
    "clean": Command(
        "List prepared data whose source has changed; with --delete, delete this data.",
        (CONFIG, KEYS, "delete"),
        ("--config=own --config.source.path=FOLDER", "--config=own --delete"),
        mode="clean",
    ),
    "evaluate": Command(
        "Measure a trained run, and write evaluation.json.",
        ("workdir", KEYS),
        ("--workdir=runs/quickstart", '--workdir=runs/quickstart --config.evaluation.nfe="(4,16)"'),
        mode="evaluate",
    ),
    "sample": Command(
        "Fill the gaps of prompts or edit documents, and write a page that shows each step.",
        ("prompt", "edit", "workdir", KEYS),
        (
            '--prompt="a picture of a tiger: <image>"',
            '--workdir=runs/quickstart --prompt="<image:tiger.png> <text>"',
            '--workdir=runs/documents --edit="a picture of a tiger: <image:fox.png>"',
        ),
        "Without --workdir and --config, the command copies the model of the package to "
        "runs/pretrained, samples from this model, and writes the page to this folder.",
        mode="sample",
        defaults=(PRETRAINED,),
    ),
    "export": Command(
        "Write only those files of a trained run that sampling needs.",
        ("workdir", "output"),
        ("--workdir=runs/quickstart --output=exported",),
        mode="export",
    ),
    "import": Command(
        "Convert a pretrained language model to an export, which writes text.",
        ("MODEL", "output", KEYS),
        ("MODEL --output=runs/smollm2",),
        "`oneflow sample`, `serve` and `demo` use the export. --config=language_model:FOLDER, "
        "where FOLDER is the export, trains it further (docs/language_models.md).",
        mode="import",
        convert=import_arguments.convert,
    ),
    "compare": Command(
        "Train seven paradigms with equal FLOPs, measure them, and write a page.",
        (CONFIG, KEYS, "workdir"),
        ("", "--config=compare:smoke"),
        "Without --workdir and --config, the command uses --config=compare.",
        mode="train",
        defaults=("--config=compare",),
        required_key="models",
    ),
    "aot": Command(
        "Compile for TPUs or GPUs that are not attached, and report memory, FLOPs and time.",
        (CONFIG, KEYS, "workdir", "topology", "per_device_batch", "program"),
        ("--config=tpu_v4:1B --topology=v4-64",),
        mode="aot",
    ),
    "demo": Command(
        "Serve a local page: write a document with gaps, and watch the model fill it.",
        ("WORKDIR", "--port"),
        ("", "runs/quickstart --port=8000"),
    ),
    "serve": Command(
        "Serve models over HTTP, with a stream of the states of each document.",
        ("--model", "--host", "--port", "--token-file"),
        ("", "--model=mine=runs/quickstart --port=8001", "--host=0.0.0.0 --token-file=token.txt"),
        "docs/serving.md describes the requests.",
    ),
    "configs": Command(
        "List the configurations; with a name, show all keys and their values.",
        ("NAME", KEYS),
        ("", "quickstart", "quickstart:edit_flow"),
    ),
}


def find(name: str) -> Command:
    """Return the command called `name`.

    Raises:
        UserError: no command has this name; the message suggests the most similar name.
    """
    if name in COMMANDS:
        return COMMANDS[name]
    if name.startswith("-"):
        raise UserError(
            f"{name}: the command is missing. Write it before the flags, as in oneflow train "
            f"{name}. The commands are {_names()}."
        )
    nearest = config_names.find_nearest(name, COMMANDS)
    hint = f" Did you mean oneflow {nearest}?" if nearest else ""
    raise UserError(f"{name}: unknown command.{hint} The commands are {_names()}.")


def make_arguments(name: str, arguments: Sequence[str]) -> list[str]:
    """Convert a command and its arguments to the arguments of `oneflow_jax.main`.

    Raises:
        UserError: the arguments contain --mode, which the command replaces, or an argument of the
            command is missing.
    """
    command = find(name)
    flags = {argument.lstrip("-").partition("=")[0] for argument in arguments}
    if "mode" in flags:
        raise UserError(
            f"--mode: the command `oneflow {name}` already sets the mode. Leave --mode out."
        )
    defaults = () if flags & {"config", "workdir"} else command.defaults
    return [f"--mode={command.mode}", *defaults, *command.convert(arguments)]


def _names() -> str:
    return ", ".join(COMMANDS)
