"""Stage 2b: adaptation inside the target, from its easy half with pseudo labels to its hard half.

    python train_intra.py --cfg ./intrada.yml

Needs the splits and pseudo labels of entropy.py and starts from the last snapshot of stage 1.
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
        "train_intra.py", "Stage 2b: adversarial training, easy half to hard half.", trains=True
    )
    args = parser.parse_args(argv)

    def body() -> None:
        from ida.intra import intra_stage

        config = cli.config_from_args(args)
        intra_stage(config, resume=args.resume, overwrite=args.overwrite)

    return cli.run_door("train_intra.py", body, argv, resumes=True)


if __name__ == "__main__":
    sys.exit(main())
