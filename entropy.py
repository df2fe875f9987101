"""Stage 2a: depth-aware ranking of the target, its split into easy and hard, pseudo labels of every image.

    python entropy.py --normalize False --lambda1 0.66
    python entropy.py --cfg ep1 --best_iter 20000

Writes `easy_split.txt`, `hard_split.txt`, `ranking.csv` and `color_masks/` where train_intra.py finds them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ida.cli import ranking_command


def main(argv: Sequence[str] | None = None) -> int:
    """Rank the target by its depth-aware score and split it; returns the exit code."""
    return ranking_command("entropy.py", "Stage 2a: rank the target and split it into easy and hard.", argv)


if __name__ == "__main__":
    sys.exit(main())
