#!/usr/bin/env bash
# Makes the virtual environment $2 with interpreter $1 and everything that da3, its demo and its tests need, at the tested versions.
# An NVIDIA driver on the machine gets PyPI's CUDA build of torch; any other machine gets a CPU build.
# TORCH_INDEX_URL overrides where torch comes from.
set -euo pipefail
python=$1
venv=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "da3 needs Python >= 3.10, $python is older" >&2; exit 1; }
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || { echo "python3 -m venv failed: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
constraints=requirements/constraints.txt
"${pip[@]}" install --quiet -c "$constraints" --upgrade pip setuptools wheel
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  torch=$(grep '^torch==' "$constraints")
  if [ -n "${TORCH_INDEX_URL:-}" ]; then
    "${pip[@]}" install --quiet --index-url "$TORCH_INDEX_URL" "$torch"
  elif command -v nvidia-smi >/dev/null || [ "$(uname -s)" != Linux ]; then
    "${pip[@]}" install --quiet "$torch"
  else
    "${pip[@]}" install --quiet --index-url https://download.pytorch.org/whl/cpu "$torch" 2>/dev/null || "${pip[@]}" install --quiet "$torch"
  fi
fi
"${pip[@]}" install --quiet -c "$constraints" --no-build-isolation -e '.[dev]'
echo "environment ready in $venv"
