#!/usr/bin/env bash
# One machine with one or more NVIDIA GPUs; a single process drives all of them.
#
#   bash launch/gpus.sh configs/vg_net.py runs/vg data/clips --config.batch_size=80
#
# CONFIG, WORKDIR and DATA, then any other flag. CUDA_VISIBLE_DEVICES=0,1 takes two GPUs. The batch is
# over all of them and must divide by their number. The same command again goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
(($# >= 3)) || { echo "usage: bash launch/gpus.sh CONFIG WORKDIR DATA [FLAGS]" >&2; exit 2; }
[[ -d .venv ]] && PATH=$PWD/.venv/bin:$PATH

# Without its CUDA plugin JAX trains on the CPU and says so in one easily missed line.
if ! python -c 'import jax; raise SystemExit(jax.default_backend() != "gpu")'; then
  echo 'error: JAX sees no GPU here: pip install -c constraints.txt "jax[cuda13]"' >&2
  exit 2
fi

exec python -m atvg_jax.train --config="$1" --workdir="$2" --config.data="$3" "${@:4}"
