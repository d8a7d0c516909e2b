"""Processes and GPUs of a SLURM job step, which `srun` starts.

JAX finds the processes of a step from SLURM's variables, but assumes one process per GPU. This
module finds the GPUs of each process, so that a step may also have one process per node.
"""

import glob
import os
import re
from collections.abc import Mapping

STEP_VARS = (
    "SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID",
)  # fmt: skip
"""Variables that `srun` sets in every process, and that JAX needs."""

GPU_FILES = "/dev/nvidia[0-9]*"
"""Device files of the GPUs of a node."""


def num_processes(env: Mapping[str, str] = os.environ) -> int:
    """Return the number of processes of this job step; 1 outside of a job step."""
    if not all(env.get(name) for name in STEP_VARS):
        return 1
    return int(env["SLURM_NTASKS"])


def local_gpus(env: Mapping[str, str] = os.environ) -> list[int] | None:
    """Return the indices of the GPUs that this process uses, among the GPUs that it can see.

    The processes of a node share its GPUs equally, unless SLURM gives each process its own GPUs
    (`--gpus-per-task`).

    Returns:
        Indices of the GPUs; None on a node without GPUs.
    """
    visible = env.get("CUDA_VISIBLE_DEVICES")
    count = len(visible.split(",")) if visible else len(glob.glob(GPU_FILES))
    if not count:
        return None
    processes = _processes_of_node(env)
    is_bound = "SLURM_GPUS_PER_TASK" in env or "gres/gpu" in env.get("SLURM_TRES_PER_TASK", "")
    if is_bound or processes > count:
        return list(range(count))
    own = count // processes
    first = own * int(env["SLURM_LOCALID"])
    return list(range(first, first + own))


def _processes_of_node(env: Mapping[str, str]) -> int:
    """Return the number of processes of this job step on this node.

    SLURM lists the numbers of all nodes: "8(x2),4" is 8 processes on two nodes, and 4 on the third.
    """
    counts: list[int] = []
    text = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE", "1")
    for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(number)] * int(times or 1)
    return counts[min(int(env.get("SLURM_NODEID", 0)), len(counts) - 1)]
