"""Per-class IoU and mIoU of one checkpoint, the last snapshot, or every one.

    python test.py --cfg ./configs/configs/dg.yml
    python test.py --cfg dg TEST.MODE=best

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
        "test.py", "Per-class IoU and mIoU of one checkpoint, the last snapshot, or every one."
    )
    args = parser.parse_args(argv)
    return cli.run_door("test.py", lambda: cli.evaluate_and_print(args), argv)


if __name__ == "__main__":
    sys.exit(main())
