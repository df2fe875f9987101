"""Stage 2b: adaptation inside the target, from its easy half with pseudo labels to its hard half.

    python train_intra.py --cfg ./intrada.yml

Needs the splits and pseudo labels of entropy.py and starts from the last checkpoint of stage 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ida.cli import intra_stage, training_command


def main(argv: Sequence[str] | None = None) -> int:
    """Train easy half -> hard half; returns the exit code."""
    return training_command("train_intra.py", "Stage 2b: adversarial training, easy to hard half.", intra_stage, argv)


if __name__ == "__main__":
    sys.exit(main())
