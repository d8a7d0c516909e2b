#!/usr/bin/env bash
# Trains on the GPUs of a SLURM cluster. When its time is over, the job saves a checkpoint, returns
# to the queue and resumes.
#
#     sbatch [FLAG...] launch/slurm.sh ARGUMENT...
#
# Submit it in the folder of the project, which all nodes must see. The arguments are flags of the
# program, such as --config=configs/gpu.py:1B-8 and --workdir=FOLDER. The flags of sbatch, such as
# --partition, --account, --time, --nodes and --gpus-per-node, take precedence over the lines below.
# Variable: PYTHON is the program's Python.
#SBATCH --job-name=oneflow
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --output=oneflow-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@300
set -euo pipefail
: "${PYTHON:=.venv/run/bin/python}"

if [[ "${1:-}" == --help || "${1:-}" == -h ]]; then
    sed -n '2,/^#SBATCH/{/^#SBATCH/d;s/^# \{0,1\}//p;}' "$0"
    exit
fi
if [[ -z "${SLURM_JOB_ID:-}" ]]; then
    echo "error: this is not a SLURM job; submit the script with sbatch launch/slurm.sh." >&2
    exit 1
fi
if (($# == 0)); then
    echo "error: give the program's flags, such as --config=configs/gpu.py:1B-8." >&2
    exit 1
fi

# Only data parallelism crosses the network between nodes.
if ((SLURM_JOB_NUM_NODES > 1)); then set -- "--config.mesh.slices=$SLURM_JOB_NUM_NODES" "$@"; fi

# 300 seconds before the end of its time, SLURM sends SIGTERM to the program, but not to this script.
# The processes save a checkpoint together, so SLURM must not end the others when the first exits.
status=0
srun --cpu-bind=none --kill-on-bad-exit=0 --wait=600 "$PYTHON" -m oneflow_jax.main "$@" || status=$?

# The program exits with 143 when SIGTERM has stopped it and its checkpoint is saved.
if ((status == 143)); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
