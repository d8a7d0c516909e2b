"""Long checks: `python -m tests.distributed.run_on_pod curves`, or `kills`.

curves   every paradigm on 1 process of 1 device, and on 1, 2 and 4 processes of 8 together; the
         greatest relative difference of any figure that was reported
kills    runs that are killed again and again at random moments, saving included, by SIGKILL, and
         started anew: do they end with the same bits as one that nobody disturbed?
"""

import argparse
import pathlib
import random
import tempfile
import time

import numpy as np
from etils import epath

from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.runtime import metric_writer, workdir
from tests import runs
from tests.codecs.autoencoder import small_models
from tests.distributed import config, pods

PARADIGMS = ("oneflow", "mask_flow", "edit_flow", "transfusion", "chameleon", "dalle", "language")
TRAINING_MODULE = "tests.distributed.training"
LAYOUTS = ((1, 1), (1, 8), (2, 8), (4, 8))
"""Processes, and devices of all of them."""

CODES_CONFIG = """
from configs import common
from tests.distributed import config

def get_config(paradigm):
    given = config.get_config(paradigm)
    given.codec = common.vq_codec({path!r}, pixels=4)
    return given
"""


def read_reports(folder):
    """All that a run has reported of training and of held-out losses: (step, name) -> value."""
    told = ("per_second", "waiting", "slowest", "goodput", "step")
    return {
        (row["step"], name): x
        for row in metric_writer.read_metrics(folder / workdir.LOGS)
        for name, x in row.items()
        if not any(part in name for part in told)
    }


def compare_curves(paradigms):
    """Prints the greatest relative difference from one process of one device, by layout."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        diffusers_weights.save(
            epath.Path(scratch / "codec"),
            small_models.VQ,
            small_models.random_params(small_models.VQ),
        )
        (scratch / "codes.py").write_text(CODES_CONFIG.format(path=str(scratch / "codec")))
        for name in paradigms:
            file = "tests/distributed/config.py"
            if name in ("chameleon", "dalle"):
                file = scratch / "codes.py"
            given = [f"--config={file}:{name}", f"--config.data.dir={scratch / 'data'}"]
            if name == "lmfusion":
                given.append(f"--config.start={scratch / 'language-1-1'}")
            found = {}
            for count, devices in LAYOUTS:
                folder = epath.Path(scratch / f"{name}-{count}-{devices}")
                pods.run(
                    count, *given, f"--workdir={folder}", devices=devices, module=TRAINING_MODULE
                )
                found[count, devices] = read_reports(folder)
            first = found.pop(LAYOUTS[0])
            for layout, other in found.items():
                assert other.keys() == first.keys()
                worst = max(
                    (abs(other[key] - x) / max(abs(x), 1e-3), key) for key, x in first.items()
                )
                print(f"{name:12}", *layout, f"{worst[0]:.1e} in {worst[1]}", flush=True)


def run_kill_test(num_processes, num_kills, steps, seed=0):
    """Kill a run of `num_processes` processes so often, and compare its result with another's."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, broken = (epath.Path(scratch) / name for name in ("whole", "broken"))
        given = [
            "--config=tests/distributed/config.py:oneflow",
            f"--config.steps={steps}",
            "--config.checkpoint.every=1",
            "--config.evaluation.every=7",
        ]
        layout = {"devices": num_processes, "module": TRAINING_MODULE}
        pods.run(num_processes, *given, f"--workdir={whole}", **layout)
        done, went_on = 0, 0
        while done < num_kills:
            with pods.Pod(num_processes, *given, f"--workdir={broken}", **layout) as pod:
                started = time.monotonic()
                wanted = max(1, round(latest_step(broken) + 1 + rng.random() * steps / num_kills))
                if not pod.wait_for(f"training {wanted}/{steps}"):
                    print(num_processes, "ended before its kill at", wanted, pod.codes())
                    break
                time.sleep(rng.random() * 0.3)  # Every step is saved, in the background.
                victim = rng.randrange(num_processes)
                if any(process.poll() is not None for process in pod.all):
                    print(num_processes, "had ended already", pod.codes())
                    break
                pod.kill(victim)
                killed_at = time.monotonic()
                codes = pod.codes()
                done += 1
                went_on += "Going on from step" in pod.said(0)
                half = sorted(path.name for path in (broken / "checkpoints").glob("*tmp*"))
                print(
                    f"{num_processes} processes, kill {done}: process {victim} at step {wanted} "
                    "after "
                    f"{killed_at - started:.0f} s; all gone {time.monotonic() - killed_at:.1f} s "
                    f"later with {codes}; newest {latest_step(broken)}; half saved {half}",
                    flush=True,
                )
        (leader, *_) = pods.run(num_processes, *given, f"--workdir={broken}", **layout)
        print(
            f"{num_processes} processes: {done} kills, {went_on} starts went on from a checkpoint"
        )
        print([line for line in leader.splitlines() if "Going on" in line])
        check_identical(whole, broken, steps)


def latest_step(folder):
    """The newest step that is saved whole; 0 if there is none."""
    names = [path.name for path in (folder / workdir.CHECKPOINTS).glob("*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def check_identical(expected_dir, actual_dir, steps):
    """Prints whether two runs have ended with the same bits and the same reports."""
    system = runs.prepare_system(actual_dir, make_config(steps))
    state, position = runs.load_state(system, actual_dir)
    expected, there = runs.load_state(system, expected_dir)
    runs.assert_identical(state, expected)
    assert int(state.step) == steps
    assert position == there
    one, other = read_reports(actual_dir), read_reports(expected_dir)
    assert one.keys() == other.keys()
    np.testing.assert_array_equal(list(one.values()), list(other.values()))
    print("the same bits, the same place in the data, each step reported once", flush=True)


def make_config(steps):
    given = config.get_config("oneflow")
    given.steps = steps
    given.checkpoint.every = 1
    given.evaluation.every = 7
    return given.lock()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("curves", "kills"))
    parser.add_argument("--paradigms", nargs="*", default=[*PARADIGMS, "lmfusion"])
    parser.add_argument("--processes", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    if given.what == "curves":
        compare_curves(given.paradigms)
        return
    for count in given.processes:
        run_kill_test(count, given.kills, steps=2 * given.kills + 4)


if __name__ == "__main__":
    main()
