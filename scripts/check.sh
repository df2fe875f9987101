#!/usr/bin/env bash
# Set up .venv if needed, then lint, type-check and test. `--slow` adds kills, real subprocesses and whole protocols.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
make_environment dev quick

echo "== ruff"
ruff check .
echo "== mypy"
mypy
echo "== pytest"
if [ "${1:-}" = "--slow" ]; then
    shift
    python -m pytest "$@"
else
    python -m pytest -m "not slow" "$@"
fi
