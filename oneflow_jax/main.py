"""The command line: `python -m oneflow_jax.main --config=configs/quickstart.py`.

Kept short: what is done is in `train`, `evaluate` and `sample`, which tests and notebooks call.
"""

import logging
import sys

from absl import flags
from etils import epath
from ml_collections import config_flags

from oneflow_jax import build, evaluate, host, sample, train, workdir
from oneflow_jax.errors import UserError

MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ("train", "evaluate", "sample", "prepare"),
    "train: prepare, train (or go on), evaluate and sample; the others do that part alone.",
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


def run(argv: list[str]) -> None:
    """Does what the flags say."""
    if len(argv) > 1:
        raise UserError(f"Unknown argument {argv[1]!r}: flags begin with --.")
    config = flags.FLAGS["config"].value
    folder = epath.Path(WORKDIR.value or f"runs/{config.name}")
    build.check_platform(config)
    with workdir.claimed(folder):
        workdir.keep_config(folder, config)
        system = build.system(config, folder)
        if MODE.value == "train":
            train.run(system, folder)
        if MODE.value in ("train", "evaluate"):
            figures = evaluate.run(system, folder)
            print(evaluate.table(figures))
            print(f"Figures: {folder / workdir.EVALUATION}")
        if MODE.value in ("train", "sample"):
            prompts = PROMPT.value or config.sampling.prompts
            print(f"Page: {sample.run(system, folder, prompts)}")


def parse(argv: list[str]) -> list[str]:
    """Reads the flags; without --config, the configuration is that of the run in --workdir.

    Raises:
        UserError: an unknown flag or configuration key, or a value of the wrong type.
    """
    given = dict(arg.lstrip("-").split("=", 1) for arg in argv[1:] if "=" in arg)
    if "config" in given or "workdir" not in given:
        config_flags.DEFINE_config_file("config", help_string="A file of configs/.")
        flags.mark_flag_as_required("config")
    else:
        saved = workdir.saved_config(epath.Path(given["workdir"]))
        config_flags.DEFINE_config_dict("config", saved)
    try:
        return flags.FLAGS(argv)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def main() -> None:
    """Runs, and says a user's mistake in one message, without a traceback."""
    # force: libraries imported above have put handlers of their own in place.
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax and TFDS tell their inner life ...
    logging.getLogger("jax").setLevel(logging.WARNING)  # ... and JAX which platforms it lacks.
    host.prepare()
    try:
        run(parse(sys.argv))
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from the newest checkpoint")


if __name__ == "__main__":
    main()
