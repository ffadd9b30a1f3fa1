#!/usr/bin/env bash
# Trains the model in atvg_jax/pretrained/compact again: bash launch/train_compact.sh CLIPS [SPEECH]
# CLIPS is a folder of videos, its clips.csv files telling people, splits and offsets of the sound.
# SPEECH is a folder of recordings of anybody's speech; without one, launch/get_speech.sh gets some.
# Run it again to go on where it was stopped. Everything is in the folder that OUT names
# (runs/compact); what it learned is scored on the test people at the end.

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

clips=${1:-}
[[ -n $clips ]] || fail "which clips? bash launch/train_compact.sh CLIPS [SPEECH]"
out=${OUT:-runs/compact}
speech=${2:-$out/speech}
# Trained on so little, both networks move a mouth too little. Chosen on the validation split:
boost=${BOOST:-1.2} # of AT-net's landmarks, which then move 0.7 times as far as people there do
gain=${GAIN:-1.4} # of VG-net's faces: what costs frames made from true landmarks 0.2 dB, and no more

prepare_environment launch/speech.txt

mkdir -p "$out"
if [[ ! -f $out/offsets.jsonl ]]; then
  say "preparing $clips, and finding out whose sound is late"
  python -m data_prep.build --corpus=folder --source="$clips" --out="$out/data"
  cp "$out/data/sync.jsonl" "$out/offsets.part" && mv "$out/offsets.part" "$out/offsets.jsonl"
fi
say "preparing again what was out of sync"
python -m data_prep.build --corpus=folder --source="$clips" --out="$out/data" \
  --offsets="$out/offsets.jsonl"

if [[ ! -f $out/spoken/speech.json ]]; then
  [[ -d $speech ]] || bash launch/get_speech.sh "$speech"
  say "labelling $speech with what filmed people's lips would do"
  python -m data_prep.add_speech --data="$out/data" --corpus=folder --source="$clips" \
    --offsets="$out/offsets.jsonl" --speech="$speech" --out="$out/spoken"
fi

# Networks whose mean is taken: it errs less than any of them.
members=()
for seed in 3 4 5 6; do
  common=(--config.seed="$seed" --config.model.width=0.1875)
  say "training AT-net (speech to landmarks), seed $seed: its ear"
  run_training --config=configs/at_net.py:compact,framewise \
    --workdir="$out/framewise_$seed" --config.data="$out/spoken" "${common[@]}"
  say "training AT-net, seed $seed: all of it, on recordings and film"
  run_training --config=configs/at_net.py:compact,spoken \
    --workdir="$out/spoken_$seed" --config.data="$out/spoken" "${common[@]}" \
    --config.start_from="$out/framewise_$seed"
  say "training AT-net, seed $seed: on film"
  run_training --config=configs/at_net.py:compact,finetune \
    --workdir="$out/at_$seed" --config.data="$out/data" "${common[@]}" \
    --config.start_from="$out/spoken_$seed"
  members+=(--at="$out/at_$seed")
done
say "training VG-net (landmarks to frames)"
run_training --config=configs/vg_net.py:compact,no_discriminator \
  --workdir="$out/vg" --config.data="$out/data"

say "joining both into a model"
rm -rf "$out/model"
python -m atvg_jax.export "${members[@]}" --vg="$out/vg" --weights=float16 \
  --boost="$boost" --vg_gain="$gain" --out="$out/model"

say "scoring it on people that it has never seen"
rm -rf "$out/scores"
python -m atvg_jax.evaluate --model="$out/model" --data="$out/data" --split=test \
  --baseline_train="$out/data" --out="$out/scores"
say "done: $out/model, $out/scores/index.html"
