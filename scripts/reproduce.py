"""Reproduce a protocol of the paper and compare with its published table.

    python scripts/reproduce.py --protocol EP1 --data-root DIR --dry-run
    python scripts/reproduce.py --protocol EP1 --data-root DIR --seeds 1 2 3

First a plan: inputs, missing files, iterations, disk, time from a few measured steps, memory. Then all stages for every
seed (without --seeds those of the authors' code). Then one table: ours, the paper's rows, differences, and an
assessment against the spread that CTRL published. A second call resumes. KEY=VALUE applies to every stage,
NAME:KEY=VALUE to one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from advent.checkpoints.run_dir import experiment_folder
from advent.errors import DataError
from advent.utils.serialization import write_json, write_text
from ida import cli
from ida.pipeline.run import run_pipeline
from ida.pipeline.stage import Stage, stages_of
from reporting.estimate import check_inputs, measure, plan_table
from reporting.published import PROTOCOLS, comparison, conclusion


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, plan, run, compare; returns the exit code."""

    parser = cli.make_parser("reproduce.py", "Run a protocol of the paper, compare with its table.")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), required=True)
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="N", help="one run per seed (default: the authors' seeds)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print the plan")
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="steps to measure per stage (default: 2)")
    args = parser.parse_args(argv)

    protocol = PROTOCOLS[args.protocol]
    args.cfg = protocol.pipeline

    def stages_for(seed: int | None) -> list[Stage]:
        overrides = ["TEST.MODE=best", *cli.overrides_from_args(args)]
        if seed is not None:  # after the user's overrides, so that every seed has its own folder
            suffix = "_".join([*([args.exp_suffix] if args.exp_suffix else []), f"seed{seed}"])
            overrides += [f"TRAIN.RANDOM_SEED={seed}", f"EXP_SUFFIX={suffix}"]
        return stages_of(args.cfg, overrides)

    def body() -> None:
        runs = [stages_for(seed) for seed in (args.seeds or [None])]
        lines = check_inputs(runs[0])
        print("\n".join(lines), flush=True)
        missing = [line for line in lines if line.startswith("missing: ")]
        if missing and not args.dry_run:  # fails before minutes of measuring
            raise DataError(missing[0])
        print(plan_table(measure(runs[0], max(args.steps, 1)), len(runs)), flush=True)
        if args.dry_run:
            return
        records = []
        for stages in runs:
            records.append(run_pipeline(stages))
        table, sentence = comparison(protocol, records), conclusion(protocol, records)
        folder = experiment_folder(runs[0][-1].config)
        write_json(folder / "reproduction.json", {"schema": 1, "protocol": args.protocol, "runs": records})
        write_text(folder / "reproduction.md", f"{table}\n\n{sentence}\n")
        print(f"{table}\n{sentence}")

    return cli.run_cli("scripts/reproduce.py", body, argv)


if __name__ == "__main__":
    sys.exit(main())
