"""Stage 1: iterative self-learning on thresholded pseudo labels of the target.

    python train_isl.py --exp_root_dir=DIR --data_root=DIR

Starts from the last snapshot of stage 0 under the same experiment root (or TRAIN.RESTORE_FROM=FILE).
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
        "train_isl.py", "Stage 1: iterative self-learning on the target's pseudo labels.", trains=True
    )
    args = parser.parse_args(argv)

    def body() -> None:
        from ida.isl import isl_stage

        config = cli.config_from_args(args)
        isl_stage(config, resume=args.resume, overwrite=args.overwrite)

    return cli.run_door("train_isl.py", body, argv, resumes=True)


if __name__ == "__main__":
    sys.exit(main())
