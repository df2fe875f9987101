#!/usr/bin/env bash
# Set up .venv if needed, then lint, check types and test. `--slow` adds kills, real subprocesses and whole protocols.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
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
