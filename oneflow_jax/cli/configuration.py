"""The configuration of a call, parsed from the flags."""

import copy

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from oneflow_jax.cli import config_names
from oneflow_jax.cli.flags import MODE, WORKDIR, check_paths
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import path_keys, renamed_keys, storage, workdir


def parse_config(argv: list[str]) -> ml_collections.ConfigDict:
    """Parse the configuration from the flags.

    Without --config, the function loads the configuration of the run in --workdir.

    Raises:
        UserError: an unknown flag, configuration or key, or a value of the wrong type.
    """
    app.define_help_flags()
    renamed_keys.check_flags(argv)
    argv = config_names.resolve_flag(argv)
    saved = None
    try:
        rest = flags.FLAGS(argv, known_only=True)
        check_paths()
        if WORKDIR.value is None or any(map(config_names.FLAG.match, rest)):
            config_flags.DEFINE_config_file(
                "config", help_string="Name of a configuration, or a file.", sys_argv=argv
            )
            flags.mark_flag_as_required("config")
        else:
            saved = workdir.load_config(storage.resolve_path(WORKDIR.value, "--workdir"))
            config_flags.DEFINE_config_dict("config", copy.deepcopy(saved), sys_argv=argv)
        rest = flags.FLAGS(rest)
        config = flags.FLAGS["config"].value.lock()  # Raises an error if the file is missing.
    except (AttributeError, KeyError) as error:
        detail = getattr(error.args[0], "args", error.args)[0]  # ml_collections nests errors.
        advice = ""
        if any(argument.partition("=")[0] == "--config.source.path" for argument in argv):
            advice = " For your own data, give own, or add it to the argument: gpu:1B-8,own."
        raise UserError(
            f"--config has no key {' '.join(detail.split())}. `oneflow configs NAME` lists "
            "all keys. configs/common.py and, for codecs, configs/codec.py explain the keys."
            f"{advice}"
        ) from error
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "configs":
            raise
        raise UserError(
            f"--config: its file imports `configs` ({error}). Import the configurations of this "
            "project as `from oneflow_jax.configs import common`."
        ) from error
    except (flags.Error, OSError, TypeError, ValueError) as error:
        first, *_, last = [*str(error).strip().splitlines()] * 2
        raise UserError(first if first == last else f"{first} {last.strip()}") from error
    if len(rest) > 1:
        raise UserError(f"Unknown argument {rest[1]!r}. Flags start with --.")
    if saved is not None and MODE.value in ("train", "prepare"):
        path_keys.check_relative(saved, config)
    config = (workdir.resolve_paths if saved is None else workdir.expand_paths)(config)
    return workdir.exclude_choices(config, config_flags.get_override_values(flags.FLAGS["config"]))


def format_config(argv: list[str]) -> str:
    """Return every key and value of the configuration that the flags select, one per line."""
    items = workdir.flatten_config(parse_config(argv)).items()
    return "\n".join(f"{key} = {value}" for key, value in items)
