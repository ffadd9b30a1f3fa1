#!/usr/bin/env bash
# Several hosts with NVIDIA GPUs under SLURM, one process a GPU:
#
#   sbatch --nodes=2 launch/slurm.sh configs/vg_net.py /shared/runs/vg /shared/clips --config.batch_size=160
#
# CONFIG, WORKDIR and DATA, then any other flag; from the repository, whose .venv, like WORKDIR and DATA,
# all hosts must see under the same path. The lines below are defaults: flags of sbatch override them.
#SBATCH --job-name=atvg_jax
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# Two minutes before the end of the time (and when the hosts are wanted back) this script hears
# SIGTERM; the run then saves, and the job queues again to go on.
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"
(($# >= 3)) || { echo "usage: sbatch launch/slurm.sh CONFIG WORKDIR DATA [FLAGS]" >&2; exit 2; }
[[ -d .venv ]] && PATH=$PWD/.venv/bin:$PATH

# Which process is which, and where the first one listens, JAX reads from SLURM's variables. Every
# process sees all GPUs of its host and takes the one of its number, so no --gpus-per-task here.
srun --kill-on-bad-exit=1 python -m atvg_jax.train --distributed \
  --config="$1" --workdir="$2" --config.data="$3" "${@:4}" &
step=$!
stopped=
trap 'stopped=yes; kill -TERM "$step"' TERM
status=0
wait "$step" || status=$?
if [[ -n $stopped ]]; then # the trap ended that wait: now for the run itself
  status=0
  wait "$step" || status=$?
  ((status)) || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
