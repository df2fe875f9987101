# Sourced by quickstart.sh and check.sh: makes and enters .venv. Needs Python 3.11 or later and nothing else.

PYTHON="${PYTHON:-python3}"

# make_environment EXTRA...: install this project with the given extras, at the versions that were tested.
# An environment that fits already (same requirements, same constraints) is used as it is.
make_environment() {
    local extras stamp want
    extras="$(IFS=,; echo "$*")"
    if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "$0: error: Python 3.11 or later is needed, '$PYTHON' is not; set PYTHON=/path/to/python3" >&2
        exit 2
    fi
    [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
    # shellcheck disable=SC1091
    source .venv/bin/activate
    want="$(cat pyproject.toml constraints.txt scripts/environment.sh | cksum) $PWD"
    stamp=".venv/installed-$extras"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
        echo "== installing into .venv (once; several GB with PyTorch)"
        python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision
        python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extras]"
        echo "$want" > "$stamp"
    fi
}
