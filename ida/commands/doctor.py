"""Check your data: counts, pairs, sizes, label ids, depth, unreadable files, common mistakes.

    python scripts/doctor.py --cfg ep1 --data-root DIR
    python scripts/doctor.py --dataset cityscapes --root DIR --quick 200

Exit code: 0 if a stage can use the data, 1 if something has to be fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advent.dataset.spec import load_spec
from advent.doctor.check import check_split
from advent.doctor.summarize import shared, text
from advent.doctor.targets import targets_of_config, targets_of_dataset
from advent.errors import ConfigError, DataError
from ida import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and check the data; returns the exit code."""

    parser = cli.make_parser("doctor.py", "Check the data of a config, or one data set.")
    parser.add_argument("--dataset", metavar="NAME", help="check one data set: a name, or a spec's path; with --root")
    parser.add_argument("--root", metavar="DIR", type=Path, help="the data set's folder")
    parser.add_argument("--classes", metavar="NAME", help="with --dataset: the class set for pixel counts")
    parser.add_argument("--quick", metavar="N", type=int, default=0, help="read only N images per set, evenly spaced")
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="reader threads; 0: one per core")
    args = parser.parse_args(argv)
    problems = 0

    def body() -> None:
        nonlocal problems
        if (args.dataset is None) != (args.root is None):
            raise ConfigError("--dataset and --root belong together: --dataset cityscapes --root DIR")
        if args.quick < 0 or args.workers < 0:
            raise ConfigError("--quick and --workers: expected numbers not below zero")
        if args.dataset is None:
            targets = targets_of_config(cli.config_from_args(args))
        else:
            if not args.root.is_dir():
                raise DataError(f"--root {args.root}: no such folder")
            targets = targets_of_dataset(load_spec(args.dataset), args.root, args.classes)
        checked = [check_split(target, args.quick, args.workers) for target in targets]
        findings = [finding for finding, _ in checked]
        shared(findings, [digests for _, digests in checked])
        print(text(findings))
        problems = sum(len(finding.errors) for finding in findings)

    return cli.run_cli("scripts/doctor.py", body, argv) or int(problems > 0)
