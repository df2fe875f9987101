"""Install the wheels of packages that this Python lacks into a folder, then name requirements that are still missing.

python scripts/wheels.py --target DIR [--wheels DIR]

For machines without a package index (scripts/check.sh --gpu). Packages that are installed stay as they are. Uses the
standard library only.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]


def is_installed(name: str) -> bool:
    """Whether a distribution is on the import path, in any version."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def requirements() -> list[str]:
    """Names of the packages that scripts/gpu_check.py needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[^\w.-]", line)[0] for line in project["dependencies"]] + ["pytest"]


def main() -> int:
    """Command line; exit code 2 if a requirement is missing."""
    parser = argparse.ArgumentParser(prog="wheels.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="folder of *.whl files")
    parser.add_argument("--target", type=Path, metavar="DIR", required=True, help="folder to install into")
    args = parser.parse_args()
    if args.wheels is not None and not args.wheels.is_dir():
        print(f"check.sh: error: --wheels {args.wheels}: no such folder", file=sys.stderr)
        return 2
    files = sorted(args.wheels.glob("*.whl")) if args.wheels else []
    new = [str(file) for file in files if not is_installed(file.name.split("-")[0])]
    if new:
        options = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--target", str(args.target)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *new], check=True)
    sys.path.insert(0, str(args.target))
    missing = [name for name in requirements() if not is_installed(name)]
    if missing:
        print(
            f"check.sh: error: this Python lacks {', '.join(missing)}; on a machine with a package index run pip "
            f"download --no-deps --only-binary=:all: -d wheels {' '.join(missing)} (and what they need), and pass "
            "--wheels wheels",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
