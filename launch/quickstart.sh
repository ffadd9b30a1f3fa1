#!/usr/bin/env bash
# A talking face from a clone, on a machine with Python 3.11 and nothing else: bash launch/quickstart.sh
# The environment is made in .venv, the video in the folder that OUT names (runs/quickstart).

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

out=${OUT:-runs/quickstart}

prepare_environment launch/quickstart.txt

say "synthesizing with the model in atvg_jax/pretrained/compact"
python -m atvg_jax.synthesize --image=atvg_jax/assets/hopper.jpg \
  --audio=atvg_jax/assets/speech.flac --out="$out/talk.mp4" --visualise
say "done: $(realpath "$out/talk.mp4")"
