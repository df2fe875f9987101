"""As test.py, for the model of intra-domain adaptation; also evaluates a published checkpoint.

    python test_intra.py --cfg ./intrada.yml
    python test_intra.py --cfg ./intra_trained.yml TEST.RESTORE_FROM=FILE

Prints a table and writes `results.json` to the stage's folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ida.cli import evaluation_command


def main(argv: Sequence[str] | None = None) -> int:
    """Score the checkpoints that TEST names on the target's labelled set; returns the exit code."""
    return evaluation_command("test_intra.py", "As test.py, for the model of intra-domain adaptation.", argv)


if __name__ == "__main__":
    sys.exit(main())
