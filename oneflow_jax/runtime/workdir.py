"""The folder of one run: its configuration, and the right to write to it.

| file            | what it holds                                                           |
|-----------------|-------------------------------------------------------------------------|
| config.json     | the resolved configuration; the folder alone is enough to sample from   |
| tokenizer.model | the SentencePiece model                                                 |
| intake.json     | of own data: what was read and what was dropped, and why; also .html, .png |
| latents.json    | of a learned codec: which one, and the mean and deviation of its latents |
| codec/          | of the training of a codec: the autoencoder, in the layout of diffusers |
| checkpoints/    | see `checkpoint`                                                        |
| weights.safetensors | in place of them, in what was made to give away: see `release`      |
| logs/           | see `logs`                                                              |
| evaluation.json | figures, name -> value                                                  |
| compile.json    | what it needs and takes on TPUs, by topology: see `compiling`           |
| compile.png     | what fills the memory of a chip there                                   |
| samples.html    | the page                                                                |
| samples.png     | a film strip of its first document                                      |
| previews/       | the same, as training went on: <step>.html, <step>.png                  |
| profile/        | of some steps, for TensorBoard                                          |
| compiled/       | programs, so that they need not be compiled again                       |
| owner.txt       | in an object store: who trains here, see `storage.Owner`                |
"""

import contextlib
import errno
import fcntl
import functools
import json
import operator
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, storage

CONFIG = "config.json"
TOKENIZER = "tokenizer.model"
LATENTS = "latents.json"
DATA_REPORT = "intake.json"
CHECKPOINTS = "checkpoints"
WEIGHTS = "weights.safetensors"
LOGS = "logs"
CODEC = "codec"
EVALUATION = "evaluation.json"
AOT_REPORT = "compile.json"
AOT_MEMORY_PLOT = "compile.png"
SAMPLES_PAGE = "samples.html"
PREVIEWS = "previews"
PROFILE = "profile"
COMPILATION_CACHE = "compiled"

MUTABLE_KEYS = (
    "name",
    "steps",
    "mesh",
    "platform",
    "needs",
    "topologies",
    "start",
    "profile",
    "keep_compiled",
    "data.dir",
    "data.preparing",
    "codec.path",
    "model.attention",
    "logging",
    "checkpoint",
    "evaluation",
    "sampling",
)
"""Keys and sections of the configuration that a run may be continued with other values of."""

DEFAULTS_FOR_OLD_RUNS = {
    "profile": (),
    "keep_compiled": False,
    "topologies": (),
    "checkpoint.milestones": 0,
    "data.streams": 1,
    "data.preparing": 1,
    "optimizer.frozen": "",
    "mesh.slices": 1,
    "mesh.sequence": 1,
}
"""Keys that came after runs had been saved, with the values that these runs in fact had."""

DOCUMENT_DEFAULTS_FOR_OLD_RUNS = {
    "start": "",
    "data.coverage": 1.0,
    "data.long": "error",
    "model.attention": "dense",
    "sampling.every": 0,
    "sampling.top_k": 0,
    "evaluation.thorough": False,
    "evaluation.inception": "",
    "evaluation.clip": "",
}
"""The same, of models of documents alone."""

_DISK_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
)


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
    """Holds the folder, made if need be, for this run alone; a killed process lets go of it.

    Raises:
        UserError: another run holds it; or the disk is full or closed to us, then or later.
    """
    with _translate_os_errors(workdir):
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError) as error:
            raise UserError(
                f"--workdir={workdir} cannot be made a folder ({error.strerror}): choose another."
            ) from error
        # Object stores have no locks (see `storage.Owner`); and the leader holds the folder for all
        # processes of a run.
        if storage.is_remote(workdir) or not distributed.is_primary():
            yield
            return
        with pathlib.Path(workdir, ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"--workdir={workdir} is in use by another run: wait for it, or choose another."
                ) from error
            yield


def check_config(workdir: epath.Path, config: ml_collections.ConfigDict) -> None:
    """Holds a configuration against that of the run in the folder, if there is one.

    Until a first checkpoint is saved there is nothing to lose, and any value may change.

    Raises:
        UserError: the folder belongs to a run of another configuration.
    """
    path = workdir / CONFIG
    old = _read_config(path) if path.exists() else {}
    if "contestants" in old:
        raise UserError(f"--workdir={workdir} holds a comparison: choose another --workdir.")
    changed = [
        f"{name}: {was!r} there, {now!r} now"
        for name, was, now in _diff_configs(old, json.loads(config.to_json()))
        if name not in MUTABLE_KEYS and name.split(".")[0] not in MUTABLE_KEYS
    ]
    trained = has_checkpoints(workdir)
    if changed and trained:
        raise UserError(
            f"--workdir={workdir} holds a run of another configuration ({'; '.join(changed)})."
            " Choose another --workdir, or give the values that are there."
        )
    if changed or (not trained and old.get("start") != config.get("start")):
        # They were made for the old values, or taken over from another run.
        (workdir / TOKENIZER).unlink(missing_ok=True)
        (workdir / LATENTS).unlink(missing_ok=True)


def has_checkpoints(workdir: epath.Path) -> bool:
    """Whether something has been saved there, whole or not."""
    return is_export(workdir) or any((workdir / CHECKPOINTS).glob("*"))


def is_export(workdir: epath.Path) -> bool:
    """Whether it holds weights alone, to sample from: see `release`."""
    return (workdir / WEIGHTS).exists()


def save_config(workdir: epath.Path, config: ml_collections.ConfigDict) -> None:
    """Writes the configuration into the folder, as that of its run."""
    text = json.dumps(json.loads(config.to_json()), indent=2) + "\n"
    write_atomically(workdir / CONFIG, text)


def load_config(workdir: epath.Path, field: str = "--workdir") -> ml_collections.ConfigDict:
    """The configuration of the run in a folder; `field` is what named it.

    Raises:
        UserError: there is none.
    """
    path = workdir / CONFIG
    if not path.exists():
        raise UserError(
            f"{field}={workdir} has no {CONFIG}: give the folder of a run, or --config to train."
        )
    return ml_collections.ConfigDict(_lists_to_tuples(_read_config(path)))


def flatten_config(config: ml_collections.ConfigDict) -> dict[str, str]:
    """All settings, each under its full name."""
    rows: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            rows |= {f"{name}.{key}": text for key, text in flatten_config(value).items()}
        else:
            rows[name] = str(value)
    return rows


def write_atomically(path: epath.Path, data: str | bytes) -> None:
    """Writes a file that is never seen half written; of several processes the leader does."""
    if not distributed.is_primary():
        return
    data = data.encode() if isinstance(data, str) else data
    if storage.is_remote(path):  # An object appears whole.
        path.write_bytes(data)
        return
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(data)
    draft.replace(path)


@contextlib.contextmanager
def _translate_os_errors(workdir: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRNOS:
            raise
        raise UserError(
            f"{error.filename or workdir}: {error.strerror}. Free some space, give the right to "
            "write there, or choose another --workdir; what was saved before is whole, and the "
            "same command goes on from there."
        ) from error


def _read_config(path: epath.Path) -> dict[str, Any]:
    """What a file of a configuration holds, of an earlier version too."""
    saved = json.loads(path.read_text())
    # Comparisons have theirs in the folders of their runs.
    if "paradigm" in saved:
        _fill_missing_keys(saved, DEFAULTS_FOR_OLD_RUNS | DOCUMENT_DEFAULTS_FOR_OLD_RUNS)
    elif "autoencoder" in saved:
        _fill_missing_keys(saved, DEFAULTS_FOR_OLD_RUNS)
    return saved


def _fill_missing_keys(config: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for name, value in defaults.items():
        *sections, key = name.split(".")
        section = functools.reduce(operator.getitem, sections, config)
        section.setdefault(key, value)


def _diff_configs(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _diff_configs(was, now, f"{prefix}{name}.")
        elif was != now:
            yield f"{prefix}{name}", was, now


def _lists_to_tuples(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """JSON has lists where configurations have tuples."""
    if isinstance(value, dict):
        return {name: _lists_to_tuples(item) for name, item in value.items()}
    return tuple(map(_lists_to_tuples, value)) if isinstance(value, list) else value
