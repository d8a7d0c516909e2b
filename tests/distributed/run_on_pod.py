"""Long checks: `python -m tests.distributed.run_on_pod curves`, or `kills`.

curves   trains every paradigm with 1 process of 1 device, and with 1, 2 and 4 processes of 8
         devices in total; prints the largest relative difference of any reported metric
kills    kills runs at random steps with SIGKILL, also while saving, and resumes them; checks that
         they end bit-identical to an uninterrupted run
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
LAYOUTS = ((1, 1), (1, 8), (2, 8), (4, 8))
"""Pairs of the number of processes and the total number of devices."""

CODES_CONFIG = """
from configs import common
from tests.distributed import config

def get_config(paradigm):
    given = config.get_config(paradigm)
    given.codec = common.vq_codec({path!r}, pixels=4)
    return given
"""


def read_reports(folder):
    """Return all reported training and held-out losses: (step, name) -> value."""
    excluded = ("per_second", "data_wait", "goodput", "step")
    return {
        (row["step"], name): x
        for row in metric_writer.read_metrics(folder / workdir.LOGS)
        for name, x in row.items()
        if not any(part in name for part in excluded)
    }


def compare_curves(paradigms):
    """Print the largest relative difference of each of `LAYOUTS` from one process and device."""
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
            arguments = [f"--config={file}:{name}", f"--config.data.dir={scratch / 'data'}"]
            if name == "lmfusion":
                arguments.append(f"--config.init_from={scratch / 'language-1-1'}")
            losses = {}
            for count, devices in LAYOUTS:
                folder = epath.Path(scratch / f"{name}-{count}-{devices}")
                pods.run(
                    count,
                    *arguments,
                    f"--workdir={folder}",
                    devices=devices,
                    module=runs.TRAINING_MODULE,
                )
                losses[count, devices] = read_reports(folder)
            first = losses.pop(LAYOUTS[0])
            for layout, reports in losses.items():
                assert reports.keys() == first.keys()
                worst = max(
                    (abs(reports[key] - x) / max(abs(x), 1e-3), key) for key, x in first.items()
                )
                print(f"{name:12}", *layout, f"{worst[0]:.1e} in {worst[1]}", flush=True)


def run_kill_test(num_processes, num_kills, steps, seed=0):
    """Kill a run `num_kills` times and compare its result with an uninterrupted run."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, broken = (epath.Path(scratch) / name for name in ("whole", "broken"))
        arguments = [
            "--config=tests/distributed/config.py:oneflow",
            f"--config.steps={steps}",
            "--config.checkpoint.every=1",
            "--config.evaluation.every=7",
        ]
        layout = {"devices": num_processes, "module": runs.TRAINING_MODULE}
        pods.run(num_processes, *arguments, f"--workdir={whole}", **layout)
        done, went_on = 0, 0
        while done < num_kills:
            with pods.Pod(num_processes, *arguments, f"--workdir={broken}", **layout) as pod:
                started = time.monotonic()
                wanted_step = max(
                    1, round(latest_step(broken) + 1 + rng.random() * steps / num_kills)
                )
                if not pod.wait_for(f"training {wanted_step}/{steps}"):
                    print(
                        num_processes,
                        "ended before the kill at step",
                        wanted_step,
                        pod.exit_codes(),
                    )
                    break
                # A checkpoint is saved in the background at every step, so the kill may hit a save.
                time.sleep(rng.random() * 0.3)
                victim = rng.randrange(num_processes)
                if any(process.poll() is not None for process in pod.processes):
                    print(num_processes, "had already ended", pod.exit_codes())
                    break
                pod.kill(victim)
                killed_at = time.monotonic()
                codes = pod.exit_codes()
                done += 1
                went_on += "Resuming from step" in pod.output(0)
                half = sorted(path.name for path in (broken / "checkpoints").glob("*tmp*"))
                print(
                    f"{num_processes} processes, kill {done}: process {victim} at step "
                    f"{wanted_step} after "
                    f"{killed_at - started:.0f} s; all ended {time.monotonic() - killed_at:.1f} s "
                    f"later with exit codes {codes}; newest step {latest_step(broken)}; "
                    f"incomplete checkpoints {half}",
                    flush=True,
                )
        (primary_output, *_) = pods.run(num_processes, *arguments, f"--workdir={broken}", **layout)
        print(
            f"{num_processes} processes: {done} kills, {went_on} starts resumed from a checkpoint"
        )
        print([line for line in primary_output.splitlines() if "Resuming" in line])
        check_identical(whole, broken, steps)


def latest_step(folder):
    """Return the newest step with a complete checkpoint, or 0."""
    names = [path.name for path in (folder / workdir.CHECKPOINTS).glob("*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def check_identical(expected_dir, actual_dir, steps):
    """Check that two runs ended with bit-identical states and reports; print a confirmation."""
    system = runs.prepare_system(actual_dir, make_config(steps))
    state, position = runs.load_state(system, actual_dir)
    expected, there = runs.load_state(system, expected_dir)
    runs.assert_identical(state, expected)
    assert int(state.step) == steps
    assert position == there
    actual_reports, expected_reports = read_reports(actual_dir), read_reports(expected_dir)
    assert actual_reports.keys() == expected_reports.keys()
    np.testing.assert_array_equal(list(actual_reports.values()), list(expected_reports.values()))
    print("identical bits and data position, and each step reported once", flush=True)


def make_config(steps):
    settings = config.get_config("oneflow")
    settings.steps = steps
    settings.checkpoint.every = 1
    settings.evaluation.every = 7
    return settings.lock()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("curves", "kills"))
    parser.add_argument("--paradigms", nargs="*", default=[*PARADIGMS, "lmfusion"])
    parser.add_argument("--processes", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.what == "curves":
        compare_curves(arguments.paradigms)
        return
    for count in arguments.processes:
        run_kill_test(count, arguments.kills, steps=2 * arguments.kills + 4)


if __name__ == "__main__":
    main()
