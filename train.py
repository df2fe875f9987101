"""Stage 0: adversarial training in depth-aware space, labelled source to unlabelled target (or a baseline method).

    python train.py --cfg ./configs/configs/dg.yml --data-root DIR
    python train.py --cfg quick --resume TRAIN.MAX_ITERS=900

Writes `model_{iter}.pth`, `config.yml` and `metrics.jsonl` to the stage's folder under --exp-root.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ida.cli import train_stage, training_command


def main(argv: Sequence[str] | None = None) -> int:
    """Train TRAIN.DA_METHOD on SOURCE -> TARGET; returns the exit code."""
    return training_command("train.py", "Stage 0: train an adaptation method, source to target.", train_stage, argv)


if __name__ == "__main__":
    sys.exit(main())
