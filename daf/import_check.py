"""Import check: refuses a package `advent` that is not this project's, before any of its modules is imported.

ADVENT's repository is often installed in editable form, and the package index has an unrelated package of that name.
Either would be imported in place of this project's modules without an error.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

OWN = Path(__file__).resolve().parents[1] / "advent"


def foreign_advent() -> str | None:
    """None if `import advent` gives this project's package; else a one-line error message naming the other one."""
    loaded = sys.modules.get("advent")
    try:
        spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec("advent")
    except (ValueError, AttributeError):
        spec = None
    fix = "run from this project's folder, or: pip uninstall advent; pip install -e ."
    if spec is None:
        return f"the package advent of this project is missing ({OWN}); {fix}"
    origin = Path(spec.origin).resolve().parent if spec.origin else None
    if origin != OWN:
        return f"the module advent at {origin or spec.name} is another project's, not {OWN}; {fix}"
    return None


def require_own_advent() -> None:
    """Exit with code 2 and a one-line error if `advent` is not this project's package."""
    problem = foreign_advent()
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(2)
