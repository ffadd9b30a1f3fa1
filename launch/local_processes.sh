#!/usr/bin/env bash
# Several processes on this machine, each with CPU devices of its own, that find each other as the
# hosts of a cluster do: to try out a run over several hosts, and for the tests.
#
#   PROCESSES=2 DEVICES=2 bash launch/local_processes.sh \
#     python -m atvg_jax.train --distributed --config=configs/at_net.py:smoke --workdir=RUN --config.data=DATA
#
# SIGTERM goes to all of them. Where one fails, the others, who would wait for it, are ended too.
set -euo pipefail

processes=${PROCESSES:-2}
export JAX_PLATFORMS=cpu
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=${DEVICES:-1}"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$processes

running=()
signalled=
trap 'signalled=yes; kill -TERM "${running[@]}" 2>/dev/null || true' TERM INT

for ((process = 0; process < processes; process++)); do
  JAX_PROCESS_ID=$process "$@" &
  running+=($!)
done

failed=0
ended=0
while ((ended < processes)); do
  status=0
  wait -n || status=$?
  if [[ -n $signalled ]]; then # nobody has ended, the wait was interrupted
    signalled=
    continue
  fi
  ((++ended))
  if ((status && !failed)); then
    failed=$status
    sleep 2 # others that fail for the same reason may say so
    kill -KILL "${running[@]}" 2>/dev/null || true
  fi
done
exit "$failed"
