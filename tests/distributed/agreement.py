"""Scenarios in which the processes of a run must agree: `python -m tests.distributed.agreement`.

Each of several processes runs all scenarios, one after the other. After each scenario it prints a
line of JSON: the name of the scenario, and its result or the message of its `UserError`.
"""

import json
import pathlib
import shutil
import sys
import traceback

import jax
import numpy as np
import pytest
from etils import epath

from oneflow_jax.build import custom_data, data
from oneflow_jax.data.custom import prepare
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, sharding, storage, workdir
from oneflow_jax.training import checkpoint
from tests.build import test_changed_data, test_data
from tests.data.custom import changing_source
from tests.training import test_damaged_checkpoints as damaged
from tests.training import test_save_schedule

SCENARIOS = {}

DAMAGES = (
    "truncated arrays", "flipped byte of EMA", "missing EMA", "empty manifest", "missing item",
    "broken position", "empty checksums", "no files",
)  # fmt: skip
"""Damages of `test_damaged_checkpoints` to try. Some damage only one process's shards."""


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def once(function):
    """Run a function in process 0, and return its result there, while the other processes wait."""
    result = function() if jax.process_index() == 0 else None
    distributed.barrier()
    return result


def own_path(path):
    """Return the path; in process 1, return `<path>.host1` instead if it exists."""
    other = pathlib.Path(f"{path}.host1")
    return other if jax.process_index() == 1 and other.exists() else pathlib.Path(path)


class Run:
    """A run on custom data. Process 1 uses `<name>.host1` in place of a folder, if it exists."""

    def __init__(self, folder):
        self.folder = folder
        self.source = once(lambda: changing_source.ChangingSource(folder / "source", seed=0))

    def prepare(self, mode="prepare", codec="patches", codec_path="", **options):
        """Prepare the data as `main` does, and return the message with the number of documents."""
        config = test_changed_data.make_config(self.folder, own_path(self.folder / "source"), codec)
        with config.unlocked():
            config.data.dir = str(own_path(self.folder / "data"))
            if codec_path:
                config.codec.path = codec_path
        folder = epath.Path(own_path(self.folder / "run"))
        folder.mkdir(parents=True, exist_ok=True)
        storage.check_shared(folder, "--workdir")
        with distributed.primary_first():
            workdir.check_config(folder, config)
        layout = data.make_layout(config, folder, mode, **options)
        workdir.save_config(folder, config)
        return data.prepare_data(config, layout).partition(", in ")[0]

    def add_and_pretend_training(self):
        self.source.add()
        test_changed_data.pretend_training(self.folder / "run")

    def copy_for_host_1(self, name):
        return shutil.copytree(self.folder / name, self.folder / f"{name}.host1")


@scenario
def same_files(folder):
    return Run(folder).prepare()


@scenario
def changed_files(folder):
    run = Run(folder)
    run.prepare()
    once(lambda: run.add_and_pretend_training())
    return run.prepare("train")


@scenario
def accepted_files(folder):
    run = Run(folder)
    run.prepare()
    once(lambda: run.add_and_pretend_training())
    return run.prepare("train", accept_changed_data=True)


@scenario
def another_listing(folder):
    run = Run(folder)
    once(lambda: next(run.copy_for_host_1("source").glob("*.txt")).unlink())
    return run.prepare()


@scenario
def another_content(folder):
    run = Run(folder)
    once(lambda: next(run.copy_for_host_1("source").glob("*.txt")).write_text("another"))
    return run.prepare()


@scenario
def other_files_in_a_trained_run(folder):
    run = Run(folder)
    run.prepare("train")
    once(lambda: next(run.copy_for_host_1("source").glob("*.txt")).write_text("another"))
    once(lambda: test_changed_data.pretend_training(folder / "run"))
    return run.prepare("train", accept_changed_data=True)


@scenario
def no_files_on_host_1(folder):
    run = Run(folder)
    once(lambda: (folder / "source.host1").mkdir())
    return run.prepare()


@scenario
def no_files(folder):
    run = Run(folder)
    once(lambda: shutil.rmtree(folder / "source"))
    return run.prepare()


@scenario
def own_disks(folder):
    run = Run(folder)
    once(lambda: (folder / "data.host1").mkdir())
    return run.prepare()


@scenario
def own_disks_of_latents(folder):
    run = Run(folder)
    once(lambda: (test_data.save_codec(folder / "codec"), (folder / "data.host1").mkdir()))
    return run.prepare(codec="vae")


@scenario
def one_disk_of_latents(folder):
    run = Run(folder)
    once(lambda: test_data.save_codec(folder / "codec"))
    return run.prepare(codec="vae")


@scenario
def a_new_disk_of_host_1(folder):
    run = Run(folder)
    once(lambda: test_data.save_codec(folder / "codec"))
    run.prepare(codec="vae")
    custom_data._OPENED.clear()
    once(lambda: (folder / "data.host1").mkdir())
    return run.prepare(codec="vae")


@scenario
def no_codec_on_host_1(folder):
    run = Run(folder)
    once(lambda: test_data.save_codec(folder / "codec"))
    if jax.process_index() == 1:
        return run.prepare(codec="vae", codec_path=str(folder / "none"))
    return run.prepare(codec="vae")


@scenario
def own_run_folders(folder):
    run = Run(folder)
    once(lambda: (folder / "run.host1").mkdir())
    return run.prepare()


@scenario
def save_by_time(folder):
    """Ask twice whether a save is due: by the clock of process 0, then by that of process 1."""
    del folder
    with pytest.MonkeyPatch.context() as patch:
        schedule, clock = test_save_schedule.make_schedule(patch, minutes=1.0)
        due = []
        for process in (0, 1):
            clock.seconds = 2_000.0 if jax.process_index() == process else 1_000.0
            due.append(schedule.is_due(2))
    return due


@scenario
def one_replica_reads(folder):
    """Restore in both processes while process 1 has no arrays: once alone, once from process 0."""
    once(lambda: shutil.copytree(folder.parent / "saved", folder))
    once(lambda: shutil.copytree(folder, f"{folder}.host1", ignore=ignore_arrays))
    try:
        restore(own_path(folder), replicated_state())
        message = ""
    except UserError as error:
        message = str(error)
    state, position = restore(own_path(folder), replicated_state(), broadcast_min_gb=1e-9)
    key = np.asarray(jax.random.key_data(state.key)).tolist()
    return [message, [np.sum(x).item() for x in jax.tree.leaves(state.ema)], key, position]


def ignore_arrays(path, names):
    """Select the files that hold the content of arrays, for `shutil.copytree`."""
    return names if pathlib.Path(path).name == "d" else []


def one_replica_finds_damage(folder):
    """Restore a damaged checkpoint in process 0, which has to read it for process 1."""
    once(lambda: shutil.copytree(folder.parent / "saved", folder))
    once(lambda: damaged.DAMAGES["truncated arrays"](folder / workdir.CHECKPOINTS / "6"))
    restore(folder, replicated_state(), broadcast_min_gb=1e-9)


def damage_scenario(damage):
    """Return a scenario in which the newest checkpoint is damaged and then skipped."""

    def run(folder):
        once(lambda: shutil.copytree(folder.parent / "saved", folder))
        once(lambda: damaged.DAMAGES[damage](folder / workdir.CHECKPOINTS / "6"))
        try:
            restore(folder)
            message = ""
        except UserError as error:
            message = str(error)
        state, position = restore(folder, skip_damaged=True)
        return [message, int(state.step), position]

    return run


def restore(folder, like=None, **options):
    position = damaged.Position()
    with checkpoint.Checkpoints(epath.Path(folder), 5) as checkpoints:
        state = checkpoints.restore(like or abstract_state(), position, **options)
    return state, position.state["0"]["n"]


def shardings():
    """Return shardings of the state: kernel rows over all processes, all else replicated."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    rows, whole = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in (("data",), ())
    )
    return jax.tree.map(lambda x: rows if x.ndim == 2 else whole, damaged.make_state(0))


def abstract_state():
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        damaged.make_state(0),
        shardings(),
    )


def replicated_state():
    """Return the abstract state of a run in which each process has the whole state."""
    whole = sharding.replicated_sharding(sharding.make_mesh({"data": jax.device_count()}))
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), damaged.make_state(0)
    )


def save_checkpoints(folder):
    """Save three checkpoints of which each process writes a part."""
    with checkpoint.Checkpoints(epath.Path(folder), 5) as checkpoints:
        for step in (2, 4, 6):
            state = jax.jit(lambda step=step: damaged.make_state(step), out_shardings=shardings())()
            checkpoints.save(state, step, damaged.Position(step))


FATAL_SCENARIOS = {"one_replica_finds_damage": one_replica_finds_damage}
"""Scenarios in which the processes end; each needs processes of its own."""

for name in DAMAGES:
    SCENARIOS[f"damage: {name}"] = damage_scenario(name)


def main(root, *names):
    distributed.initialize()
    prepare._run_workers = changing_source.prepare_here
    root = pathlib.Path(root)
    save_checkpoints(root / "saved")
    chosen = {name: (SCENARIOS | FATAL_SCENARIOS)[name] for name in names} or SCENARIOS
    for number, (name, function) in enumerate(chosen.items()):
        custom_data._OPENED.clear()
        try:
            result = function(root / str(number))
        except UserError as error:
            result = f"error: {error}"
            if name in FATAL_SCENARIOS:
                distributed.exit_process(result)
        except Exception:  # Exit at once: the other processes may wait for this one.
            distributed.exit_process(f"{name}\n{traceback.format_exc()}")
        print(json.dumps([name, result]), flush=True)
    distributed.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
