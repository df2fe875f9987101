"""Stage 2a: depth-aware ranking of the target, its split into easy and hard, pseudo labels of every image.

    python entropy.py --normalize False --lambda1 0.66
    python entropy.py --cfg rank --best_iter 20000

Leaves `easy_split.txt`, `hard_split.txt`, `ranking.csv` and `color_masks/` where train_intra.py looks for them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from daf.import_check import require_own_advent


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and rank; returns the exit code."""
    require_own_advent()
    from ida import cli

    parser = cli.make_parser("entropy.py", "Stage 2a: rank the target and split it into easy and hard.")
    parser.add_argument(
        "--normalize", type=cli.normalize_mode, metavar="BOOL",
        help="normalise scores by rare classes: true, false, or release (the published split's)",
    )  # fmt: skip
    parser.add_argument("--lambda1", type=float, metavar="SHARE", help="share of the target that becomes the easy half")
    parser.add_argument("--best_iter", "--best-iter", type=int, metavar="N", help="rank with model_N.pth, not the last")
    args = parser.parse_args(argv)

    def body() -> None:
        from ida.rank_stage import rank_stage

        overrides = [] if args.normalize is None else [f"RANK.NORMALIZE={args.normalize}"]
        overrides += [] if args.lambda1 is None else [f"RANK.LAMBDA1={args.lambda1}"]
        rank_stage(cli.config_from_args(args, overrides), best_iter=args.best_iter)

    return cli.run_door("entropy.py", body, argv)


if __name__ == "__main__":
    sys.exit(main())
