"""Run all stages of a protocol in order, skip finished ones, resume interrupted ones, print one table.

    python scripts/pipeline.py --cfg quick
    python scripts/pipeline.py --cfg ep1 --data-root DIR

KEY=VALUE applies to every stage, NAME:KEY=VALUE to one: `daf:TRAIN.EARLY_STOP=900`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advent.utils.tables import results_table
from ida import cli
from ida.pipeline.lineage import status_table
from ida.pipeline.qualitative import qualitative_figure
from ida.pipeline.run import run_pipeline


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit code."""

    parser = cli.make_parser("pipeline.py", "Run all stages of a protocol and print one table.")
    parser.add_argument("--no-test", action="store_true", help="only train: for targets without labels")
    parser.add_argument(
        "--picture", metavar="FILE", help="also write an image grid: image, truth, predictions, depth, map"
    )
    parser.add_argument("--status", action="store_true", help="only show every stage's state and inputs")
    args = parser.parse_args(argv)

    def body() -> None:
        stages = cli.stages_from_args(args)
        if args.status:
            print(status_table(stages))
            return
        if args.picture:  # fails now, not after hours of training
            Path(args.picture).parent.mkdir(parents=True, exist_ok=True)
        record = run_pipeline(stages, evaluate=not args.no_test)
        if args.picture:
            print(f"picture: {qualitative_figure(stages, args.picture)}")
        if record["results"]:
            print(results_table(record["results"]))
        print(f"seconds: {', '.join(f'{name} {value:.0f}' for name, value in record['seconds'].items())}")

    return cli.run_cli("scripts/pipeline.py", body, argv)
