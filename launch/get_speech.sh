#!/usr/bin/env bash
# Fetches some four hours of free recordings of speech, for data_prep.add_speech:
# bash launch/get_speech.sh OUT
# Packages of Debian (bookworm; main alone), fetched with apt-get and unpacked, not installed: spoken
# prompts of telephone exchanges in five languages, words for children in twenty-five, and radio
# messages of a game. Each package's usr/share/doc/*/copyright says under what terms.

set -euo pipefail

out=${1:-}
[[ -n $out ]] || { printf 'error: where to? bash launch/get_speech.sh OUT\n' >&2; exit 2; }
[[ ! -e $out ]] || { printf 'error: %s is there already\n' "$out" >&2; exit 2; }
command -v apt-get >/dev/null || { printf 'error: it takes apt-get, of Debian\n' >&2; exit 2; }

packages=(asterisk-core-sounds-{en,es,fr,it,ru}-g722 asterisk-prompt-it-menardi-wav ktuberling-data)
game=warzone2100-data
voices=(countdown extra memressp taunts tutorial vtoltalk)

part=$(realpath -m "$out").part
rm -rf "$part"
mkdir -p "$part/fetched" "$part/speech"
(cd "$part/fetched" && apt-get download "${packages[@]}" "$game")
for package in "${packages[@]}"; do
  dpkg-deb -x "$part/fetched/$package"_*.deb "$part/speech/$package"
done
dpkg-deb -x "$part/fetched/$game"_*.deb "$part/fetched/$game"
python3 -m zipfile -e "$part/fetched/$game/usr/share/games/warzone2100/base.wz" "$part/fetched/base"
mkdir "$part/speech/warzone"
for voice in "${voices[@]}"; do
  mv "$part/fetched/base/audio/$voice" "$part/speech/warzone/"
done
cp -r "$part/fetched/$game/usr/share/doc" "$part/speech/warzone/"
mv "$part/speech" "$out"
rm -rf "$part"
printf 'wrote %s\n' "$out"
