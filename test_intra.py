"""As test.py, for the model of intra-domain adaptation; also evaluates a published checkpoint.

    python test_intra.py --cfg ./intrada.yml
    python test_intra.py --cfg ./intra_trained.yml TEST.RESTORE_FROM=FILE

Prints a table and writes `results.json` into the stage's folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from daf.import_check import require_own_advent


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and score; returns the exit code."""
    require_own_advent()
    from ida import cli

    parser = cli.make_test_parser(
        "test_intra.py",
        "As test.py, for the model of intra-domain adaptation; also evaluates a published checkpoint.",
    )
    args = parser.parse_args(argv)
    return cli.run_door("test_intra.py", lambda: cli.evaluate_and_print(args), argv)


if __name__ == "__main__":
    sys.exit(main())
