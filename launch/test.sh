#!/usr/bin/env bash
# Every check and test, on a machine with Python 3.11 and a C compiler: bash launch/test.sh
# Arguments go to pytest, such as: bash launch/test.sh tests/models -k golden

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment requirements.txt

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# What other runs left behind must not decide how this one ends.
export ATVG_JAX_CACHE=$scratch/compiled
# Two test processes share the cores; four simulated devices each are set in tests/conftest.py.
export OMP_NUM_THREADS=1

say "lint, formatting, types, shell scripts"
ruff check .
ruff format --check .
mypy
shellcheck .ci/run launch/*.sh

say "tests"
python -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile "$@"

say "one short run of everything, from making a corpus to a video"
smoke=$scratch/smoke
python -m data_prep.build --corpus=synthetic --out="$smoke/data" --limit=4
python -m atvg_jax.train --config=configs/at_net.py:smoke --workdir="$smoke/at" \
  --config.data="$smoke/data" --config.steps=1
python -m atvg_jax.train --config=configs/vg_net.py:smoke --workdir="$smoke/vg" \
  --config.data="$smoke/data" --config.steps=1
python -m atvg_jax.export --at="$smoke/at" --vg="$smoke/vg" --out="$smoke/model"
python -m atvg_jax.synthesize --model="$smoke/model" --image=atvg_jax/assets/astronaut.jpg \
  --audio=atvg_jax/assets/speech.flac --out="$smoke/talk.mp4"

say "all checks and tests passed"
