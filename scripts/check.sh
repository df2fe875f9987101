#!/usr/bin/env bash
# Set up .venv if needed, then lint, check types and test. `--slow` adds kills, real subprocesses and whole protocols.
#
#   bash scripts/check.sh --gpu [cuda|cuda:N|cpu] [--wheels DIR] [--out FILE]
#
# checks a GPU instead (scripts/gpu_check.py), with the running Python if it has PyTorch: no environment, no package
# index. --wheels: a folder with wheels of packages that it lacks. `--gpu cpu` rehearses on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

if [ "${1:-}" = "--gpu" ]; then
    shift
    device=cuda arguments=() wheels=()
    while [ $# -gt 0 ]; do
        case "$1" in
            cuda|cuda:*|cpu) device="$1"; shift ;;
            --wheels) [ $# -ge 2 ] || { echo "check.sh: error: --wheels needs a folder" >&2; exit 2; }
                      wheels=("$1" "$2"); shift 2 ;;
            *) arguments+=("$1"); shift ;;
        esac
    done
    if ! "$PYTHON" -c 'import sys, importlib.util; sys.exit(importlib.util.find_spec("torch") is None)'; then
        make_environment dev docs quick
        PYTHON=python
    fi
    packages="$(mktemp -d)"
    trap 'rm -rf "$packages"' EXIT
    "$PYTHON" scripts/wheels.py --target "$packages" "${wheels[@]}"
    PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" scripts/gpu_check.py --device "$device" "${arguments[@]}"
    exit
fi
make_environment dev docs quick

echo "== ruff, codespell"
ruff check .
ruff format --check --quiet .
codespell
echo "== mypy"
mypy
echo "== pytest"
if [ "${1:-}" = "--slow" ]; then
    shift
    python -m pytest -n auto --maxprocesses=8 --dist worksteal "$@"
else
    python -m pytest -n auto --maxprocesses=8 --dist worksteal -m "not slow" "$@"
fi
