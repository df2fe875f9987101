"""Ablation benchmark: methods x seeds, rendered streets -> CamVid photographs.

    python scripts/benchmark.py --target DIR
    python scripts/benchmark.py --target DIR --seeds 1 --only source_only daf
    python scripts/benchmark.py --benchmark streets_modern
    python scripts/benchmark.py --status
    python scripts/benchmark.py --cost
    python scripts/benchmark.py --summary --curves --page docs/results.md docs/results-details.md \\
        --plot docs/results.png
    python scripts/benchmark.py --target DIR --picture docs/results.jpg

Every cell (a stage of a method, with a seed) writes one small JSON into the benchmark's `results` folder (--results
DIR: another folder). Cells with a JSON are skipped, so the benchmark can be interrupted and resumed on any machine.
Several processes may run one benchmark at once: each takes cells that no other runs. KEY=VALUE applies to every cell.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from advent.cli import OneLineParser, quoted
from advent.errors import ConfigError, hint
from advent.utils.serialization import write_json
from benchmarking import curves, summary
from benchmarking.cost import write_costs
from benchmarking.definition import Benchmark, benchmarks_with_targets, load_benchmark
from benchmarking.page import fill_page
from benchmarking.picture import picture
from benchmarking.plot import plot
from benchmarking.runs import run_cells
from benchmarking.tables import hours_table, scores_table
from ida import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line; run the cells or show results; returns the exit code."""

    kind = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="benchmark.py", description=__doc__, formatter_class=kind)
    add = parser.add_argument
    add("--benchmark", default="camvid_modern", metavar="FILE", help="default: camvid_modern")
    add("--target", metavar="DIR", help="CamVid's folder (default: data/CamVid)")
    add("--seeds", type=int, nargs="+", metavar="N", help="only these seeds (default: the benchmark's)")
    add(
        "--only",
        nargs="+",
        metavar="CELL",
        help="only these cells (and the cells that they start from, if their results or weights are missing)",
    )
    add("--results", metavar="DIR", type=Path, help="folder of results (default: the benchmark's own)")
    add("--status", action="store_true", help="only show finished cells and their run times")
    add("--cost", action="store_true", help="only measure the cost of a step of each training cell, for work units")
    add("--rounds", type=int, default=7, metavar="N", help="rounds of --cost (default: 7)")
    add("--summary", action="store_true", help=f"only write {summary.FILE}, of all benchmarks with a target")
    add("--curves", action="store_true", help=f"only write {curves.FILE}: development mIoU over work")
    add(
        "--page",
        metavar="FILE",
        type=Path,
        nargs="+",
        help="only update the tables of these pages, of all benchmarks with a target",
    )
    add("--plot", metavar="FILE", type=Path, help="only plot the first table over work")
    add(
        "--picture",
        metavar="FILE",
        type=Path,
        help="only draw the predictions of the best chain and of the upper bound",
    )
    add("overrides", nargs="*", metavar="KEY=VALUE", help="config keys for every cell")
    args = parser.parse_args(argv)

    def body() -> None:
        benchmark = load_benchmark(args.benchmark)
        if args.results is not None:
            benchmark = benchmark.model_copy(update={"results": args.results})
        main_table = benchmark.tables[0]
        target = [f"DATA_DIRECTORY_TARGET={quoted(str(Path(args.target).resolve()))}"] if args.target else []
        overrides = [*target, *args.overrides]
        for name in args.only or ():
            if name not in benchmark.by_name:
                raise ConfigError(f"--only {name}: there is no such cell; {hint(name, benchmark.by_name)}")
        outputs = (
            (args.cost, lambda: write_costs(benchmark, args.only, args.rounds, overrides)),
            (args.summary, lambda: write_json(summary.FILE, summary.summary(_all_of(benchmark)))),
            (args.curves, lambda: write_json(curves.FILE, curves.time_to_accuracy(benchmark))),
            (args.page, lambda: "\n".join(str(fill_page(_all_of(benchmark), page)) for page in args.page)),
            (args.plot, lambda: plot(benchmark, main_table, args.plot)),
            (args.picture, lambda: picture(benchmark, (args.seeds or benchmark.seeds)[0], overrides, args.picture)),
            (args.status, lambda: hours_table(benchmark, main_table.model_copy(update={"rows": ()}))),
        )
        for asked, make in outputs:
            if asked:
                print(make())
        if any(asked for asked, _ in outputs):
            return
        names = [run.name for run in benchmark.cells if args.only is None or run.name in args.only]
        run_cells(benchmark, args.seeds or benchmark.seeds, names, overrides)
        print(scores_table(benchmark, main_table))

    return cli.run_cli("scripts/benchmark.py", body, argv)


def _all_of(benchmark: Benchmark) -> list[Benchmark]:
    """The shipped benchmarks with a target, if this one is among them; else it alone."""
    shipped = benchmarks_with_targets()
    if benchmark.target is None or benchmark.name not in [other.name for other in shipped]:
        return [benchmark]
    return [benchmark, *(other for other in shipped if other.name != benchmark.name)]


if __name__ == "__main__":
    sys.exit(main())
