# Sourced by the other scripts: the project's own Python environment, .venv beside pyproject.toml.
# Needs Python 3.11 (or 3.12, 3.13) and nothing else; PYTHON names another interpreter.
# shellcheck shell=bash

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SECONDS=0 # bash counts from here

say() {
  printf '\n== %d:%02d  %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"
}

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# run_training FLAG...: python -m atvg_jax.train. A run that was asked to stop (SIGTERM) has saved and
# ends well, but what would come after it has to wait: the script ends too.
run_training() {
  local outcome
  outcome=$(python -m atvg_jax.train "$@") # one line; progress is on stderr
  printf '%s\n' "$outcome"
  [[ $outcome != *'stopped on request'* ]] || fail "stopped: the same command goes on from there"
}

# The first interpreter of a version that the pinned packages have files for.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    if [[ -n $candidate ]] && "$candidate" -c '
import sys, venv, ensurepip
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "Python 3.11 with venv was not found: install it (Debian: python3.11 python3.11-venv)" \
    "or set PYTHON to it"
}

# prepare_environment FILE: makes .venv if need be and installs what the requirements file lists.
# Done before with the same files: nothing happens.
prepare_environment() {
  local requirements=$1 python stamp wanted
  if ! .venv/bin/python -c '' 2>/dev/null; then
    python=$(find_python)
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
  fi
  stamp=.venv/installed-$(basename "$requirements")
  wanted=$(cat "$requirements" launch/*.txt constraints.txt | cksum)
  if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]]; then
    say "installing $requirements into .venv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
    printf '%s\n' "$wanted" >"$stamp"
  fi
  PATH=$PWD/.venv/bin:$PATH
  export PATH
}
