"""Stage 0: adversarial training in depth-aware space, labelled source to unlabelled target (or a baseline method).

    python train.py --cfg ./configs/configs/dg.yml --data-root DIR
    python train.py --cfg quick:daf --resume TRAIN.MAX_ITERS=900

Leaves `model_{iter}.pth`, `config.yml` and `metrics.jsonl` in the stage's folder under --exp-root.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from daf.import_check import require_own_advent


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the stage; returns the exit code."""
    require_own_advent()
    from ida import cli

    parser = cli.make_parser(
        "train.py", "Stage 0: train a method of adaptation, source to target.", trains=True
    )
    args = parser.parse_args(argv)

    def body() -> None:
        from advent.training.stage import train_stage

        config = cli.config_from_args(args)
        train_stage(config, resume=args.resume, overwrite=args.overwrite)

    return cli.run_door("train.py", body, argv, resumes=True)


if __name__ == "__main__":
    sys.exit(main())
