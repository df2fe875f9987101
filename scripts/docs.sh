#!/usr/bin/env bash
# Build the documentation site into docs/_build, strictly: a warning or a dead internal link fails. Needs Python only.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
[ -x .venv/bin/sphinx-build ] || make_environment docs
# shellcheck disable=SC1091
source .venv/bin/activate
python -m sphinx -E -W --keep-going -q -b html docs docs/_build
echo "docs/_build/index.html"
