"""Tests that the processes of a SLURM job step form one run."""

import os
import subprocess
import sys

from oneflow_jax.runtime import distributed
from tests import runs
from tests.distributed import pods

PROCESS = """
import jax
from jax._src import xla_bridge
jax.config.update("jax_platforms", "cpu")
from oneflow_jax.runtime import distributed
distributed.initialize()
print(jax.distributed.is_initialized(), jax.process_index(), jax.process_count())
print(distributed.is_primary(), xla_bridge.CUDA_VISIBLE_DEVICES.value)
"""


def start_process(index, count, port):
    environment = {k: v for k, v in os.environ.items() if k not in distributed.ENV_VARS}
    environment |= {
        "JAX_COORDINATOR_PORT": str(port),
        "SLURM_JOB_ID": "71",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
        "SLURM_NODEID": "0",
        "SLURM_STEP_TASKS_PER_NODE": str(count),
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
    }
    command = [sys.executable, "-c", PROCESS]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def run_step(count):
    """Run a job step of `count` processes; return what each prints about itself."""
    port = pods.find_free_port()
    processes = [start_process(index, count, port) for index in range(count)]
    return [process.communicate(timeout=runs.TIMEOUT_S)[0].split() for process in processes]


def test_the_processes_of_a_step_are_one_run():
    primary, secondary = run_step(2)
    assert primary == ["True", "0", "2", "True", "0,1"]
    assert secondary == ["True", "1", "2", "False", "2,3"]


def test_a_step_of_one_process_needs_no_coordinator():
    assert run_step(1) == [["False", "0", "1", "True", "all"]]
