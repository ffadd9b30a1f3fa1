#!/usr/bin/env bash
# All hosts of a Cloud TPU slice, from a machine with gcloud: a copy of this checkout and its packages go
# to every host, then every host runs the same command.
#
#   TPU=my-v4-32 ZONE=us-central2-b bash launch/tpu_pod.sh configs/vg_net.py /mnt/shared/runs/vg \
#     /mnt/shared/clips --config.batch_size=160 --config.compute_dtype=bfloat16
#
# WORKDIR and DATA are paths on the hosts that all of them see: a Filestore share, or a bucket mounted
# with gcsfuse. Again, after the slice was taken back: the same command goes on where the run stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
(($# >= 3)) || { echo "usage: TPU=NAME ZONE=ZONE bash launch/tpu_pod.sh CONFIG WORKDIR DATA [FLAGS]" >&2; exit 2; }

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "${TPU:?name of the slice}" --zone="${ZONE:?its zone}" \
    --worker=all --command="$1"
}

archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "${TPU:?}:atvg_jax.tar.gz" --zone="${ZONE:?}" --worker=all
on_all_hosts 'set -e; mkdir -p atvg_jax; tar -xzf atvg_jax.tar.gz -C atvg_jax; cd atvg_jax
  [ -x .venv/bin/python ] || python3 -m venv .venv
  .venv/bin/pip install --quiet -r launch/quickstart.txt "jax[tpu]"'

# Quoted once more, since they pass through the shell of each host.
printf -v flags ' %q' --config="$1" --workdir="$2" --config.data="$3" "${@:4}"
on_all_hosts "cd atvg_jax && exec .venv/bin/python -m atvg_jax.train --distributed$flags"
