"""Prepare data: convert SYNTHIA's original labels, or build a cache of decoded images (several times faster reading).

    python scripts/prepare.py --synthia-labels data/SYNTHIA
    python scripts/prepare.py --cfg ep1 --data-root DIR

The first command writes parsed_LABELS from GT/LABELS. The second decodes and resizes every image of the config's
source, target and labelled set once (losslessly, under DATA_ROOT/DATA_CACHE); stages use matching cache entries. Both
resume if interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from advent.build import evaluation_data, source_data, target_data
from advent.config.schema import Config
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.build_cache import fill_cache
from advent.errors import ConfigError, DataError, printable
from daf.dataset.synthia_labels import convert_labels
from ida import cli

ROLES = ("source", "target", "test")


def _datasets(config: Config, roles: Sequence[str] | None) -> list[StreetDataset]:
    """The data sets to prepare, all checked before the first is read; a target without labels has no `test`."""

    datasets: list[StreetDataset] = []
    loads: list[Callable[[Any], StreetDataset]] = [source_data, target_data, evaluation_data]
    for role, load in zip(ROLES, loads, strict=True):
        if roles is not None and role not in roles:
            continue
        try:
            datasets.append(load(config))
        except DataError as error:
            if role != "test" or roles is not None:
                raise
            print(printable(f"test: skipped ({error})"))
    return datasets


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and prepare; returns the exit code."""

    parser = cli.make_parser("prepare.py", "Prepare data: SYNTHIA's labels, or a cache for a config.")
    parser.add_argument("--synthia-labels", metavar="DIR", type=Path, help="SYNTHIA's folder: write parsed_LABELS")
    parser.add_argument("--role", choices=ROLES, action="append", help="only this part of the config (default: all)")
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="threads; 0: one per core")
    args = parser.parse_args(argv)

    def body() -> None:
        if args.workers < 0:
            raise ConfigError("--workers: expected a number not below zero")
        if args.synthia_labels is not None:
            written = convert_labels(args.synthia_labels, args.workers)
            print(f"{args.synthia_labels / 'parsed_LABELS'}: {written:,} written, the others existed")
            return
        config = cli.config_from_args(args)
        for dataset in _datasets(config, args.role):
            filled = fill_cache(dataset, args.workers)
            print(f"{filled.folder}: {filled.made:,} made, {filled.kept:,} kept, {filled.bytes / 2**30:.2f} GiB")

    return cli.run_cli("scripts/prepare.py", body, argv)
