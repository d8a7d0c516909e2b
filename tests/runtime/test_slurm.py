"""Tests of reading SLURM's variables: the processes of a job step and their GPUs."""

import glob

import pytest

from oneflow_jax.runtime import slurm

STEP = {
    "SLURM_JOB_ID": "71",
    "SLURM_STEP_NODELIST": "node[3-4]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
}


def test_only_a_job_step_has_several_processes():
    assert slurm.num_processes(STEP) == 2
    batch_script = {name: STEP[name] for name in STEP if name != "SLURM_STEP_NODELIST"}
    assert slurm.num_processes(batch_script) == 1
    assert slurm.num_processes({}) == 1


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),  # One process per node.
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_LOCALID": "5"}, [5]),  # One per GPU.
        ({"SLURM_STEP_TASKS_PER_NODE": "8,2", "SLURM_LOCALID": "1"}, [4, 5, 6, 7]),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2),1", "SLURM_LOCALID": "3"}, [6, 7]),
        # SLURM shows each process its own GPU only.
        (
            {
                "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
                "SLURM_LOCALID": "5",
                "SLURM_GPUS_PER_TASK": "1",
                "CUDA_VISIBLE_DEVICES": "5",
            },
            [0],
        ),
        (
            {
                "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
                "SLURM_LOCALID": "1",
                "SLURM_TRES_PER_TASK": "cpu=8,gres/gpu=2",
                "CUDA_VISIBLE_DEVICES": "2,3",
            },
            [0, 1],
        ),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "2"}, [0]),
    ],
)
def test_processes_of_a_node_share_its_gpus(variables, gpus):
    assert slurm.local_gpus(STEP | variables) == gpus


def test_device_files_are_counted_without_the_variable(monkeypatch):
    files = [f"/dev/nvidia{n}" for n in range(4)]
    monkeypatch.setattr(glob, "glob", lambda pattern: files * (pattern == slurm.GPU_FILES))
    environment = {name: STEP[name] for name in STEP if name != "CUDA_VISIBLE_DEVICES"}
    assert slurm.local_gpus(environment) == [0, 1, 2, 3]
    files.clear()
    assert slurm.local_gpus(environment) is None
