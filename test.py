"""Per-class IoU and mIoU of one checkpoint, the last one, or every one.

    python test.py --cfg ./configs/configs/dg.yml
    python test.py --cfg dg TEST.MODE=best

Prints a table and writes `results.json` to the stage's folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ida.cli import evaluation_command


def main(argv: Sequence[str] | None = None) -> int:
    """Score the checkpoints that TEST names on the target's labelled set; returns the exit code."""
    return evaluation_command("test.py", "Per-class IoU and mIoU of one checkpoint, the last one, or every one.", argv)


if __name__ == "__main__":
    sys.exit(main())
