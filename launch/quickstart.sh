#!/usr/bin/env bash
# A talking face from a clone, on a machine with Python 3.11 and a C compiler: bash launch/quickstart.sh
# Run it again to go on where it was stopped; what is finished is kept. Everything is in .venv and
# in the folder that OUT names (runs/quickstart).

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

out=${OUT:-runs/quickstart}
clips=${CLIPS:-32}
at_steps=${AT_STEPS:-100}
vg_steps=${VG_STEPS:-360}

prepare_environment launch/quickstart.txt

bundled=atvg_jax/pretrained/compact
model=$bundled
if [[ ! -f $bundled/model.json ]]; then
  model=$out/model
fi

if [[ ! -f $model/model.json ]]; then
  say "no trained model ships with the project yet, so compact networks are trained first, for a" \
    "few minutes, on synthetic clips. Expect a mouth that moves with the sound in a blurred picture," \
    "and no face but the bundled one."
  say "making and preparing $clips synthetic clips"
  python -m data_prep.build --corpus=synthetic --out="$out/data" --limit="$clips"
  say "training AT-net (speech to landmarks), compact, $at_steps steps"
  python -m atvg_jax.train --config=configs/at_net.py:compact --workdir="$out/at" \
    --config.data="$out/data" --config.steps="$at_steps" --config.checkpoint_every=50
  say "training VG-net (landmarks to frames), compact, $vg_steps steps"
  # A few hundred steps are too few for a discriminator, or for attention, to learn anything.
  python -m atvg_jax.train --config=configs/vg_net.py:compact,no_discriminator,no_attention \
    --workdir="$out/vg" --config.data="$out/data" --config.steps="$vg_steps" \
    --config.checkpoint_every=50 --config.learning_rate=1e-3 --config.frames=8 \
    --config.batch_size=2 --config.eval_windows=8
  say "joining both into a model"
  python -m atvg_jax.export --at="$out/at" --vg="$out/vg" --out="$model"
fi

say "synthesizing"
python -m atvg_jax.synthesize --model="$model" --image=atvg_jax/assets/astronaut.jpg \
  --audio=atvg_jax/assets/speech.flac --out="$out/talk.mp4" --visualise
say "done: $(realpath "$out/talk.mp4")"
