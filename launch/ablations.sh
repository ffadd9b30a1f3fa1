#!/usr/bin/env bash
# The paper's ablations, one table: bash launch/ablations.sh DATA
# DATA is a data set that data_prep made. Each network is trained on it with the same seed and
# number of steps, one thing left out, and scored on the test people. Run it again to go on where
# it was stopped.
#   SIZE   compact (the default), smoke (seconds, to try the script) or empty for the published size
#   STEPS  of every VG-net, AT_STEPS of every AT-net (as the size has them)
#   OUT    where everything goes (runs/ablations); the table is OUT/table.md
# Further arguments go to the evaluation; --no_cpbd --no_identity --videos=0 leave out what takes
# longest, and --limit=N scores N clips.

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

data=${1:-}
[[ -n $data ]] || fail "which data set? bash launch/ablations.sh DATA"
shift
out=${OUT:-runs/ablations}
size=${SIZE-compact}

prepare_environment launch/train.txt

# train NETWORK WORD: the network of configs/NETWORK.py without what WORD says; full leaves it whole.
train() {
  local network=$1 word=$2 arguments=$size steps=${STEPS:-}
  [[ $word == full ]] || arguments=${size:+$size,}$word
  [[ $network == vg_net ]] || steps=${AT_STEPS:-}
  say "training $network, $word"
  run_training --config="configs/$network.py${arguments:+:$arguments}" \
    --workdir="$out/$network/$word" --config.data="$data" ${steps:+"--config.steps=$steps"}
}

# score NAME AT VG: joins two trainings and scores them as OUT/scores/NAME.
score() {
  local name=$1 at=$2 vg=$3
  shift 3
  [[ ! -f $out/scores/$name/scores.json ]] || return 0
  say "scoring $name"
  rm -rf "$out/models/$name" "$out/scores/$name"
  python -m atvg_jax.export --at="$out/at_net/$at" --vg="$out/vg_net/$vg" --out="$out/models/$name"
  python -m atvg_jax.evaluate --model="$out/models/$name" --data="$data" --split=test \
    --out="$out/scores/$name" "$@"
}

train at_net full
train at_net single
compared=()
for word in full no_attention plain_discriminator no_discriminator no_recurrence; do
  train vg_net "$word"
  score "$word" full "$word" "$@"
  compared+=("$word=$out/scores/$word")
done
score single single full "$@"
compared+=("single=$out/scores/single")

say "one table"
rm -f "$out/table.md"
python -m atvg_jax.evaluate --compare "${compared[@]}" --out="$out/table.md"
say "done: $out/table.md"
