"""Stage 1: iterative self-learning on thresholded pseudo labels of the target.

    python train_isl.py --exp_root_dir=DIR --data_root=DIR

Starts from the last checkpoint of stage 0 under the same experiment root (or TRAIN.RESTORE_FROM=FILE).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ida.cli import isl_stage, training_command


def main(argv: Sequence[str] | None = None) -> int:
    """Train on pseudo labels that are updated every ISL.REFRESH_EVERY iterations; returns the exit code."""
    text = "Stage 1: iterative self-learning on the target's pseudo labels."
    return training_command("train_isl.py", text, isl_stage, argv)


if __name__ == "__main__":
    sys.exit(main())
