"""Write an experiment report: one HTML page with settings, tables, curves, ranking, pseudo labels, images.

    python scripts/report.py experiments/quick_modern_photographs --out report.html
    python scripts/report.py experiments/ep1_seed1 experiments/ep1_seed2 --out two.html --figures DIR --latex table.tex

The page is self-contained, without scripts or external requests. Several experiments are compared on the same images.
Only the output of scripts/pipeline.py is read; networks and data are not needed. Needs the extra `report`:
pip install -e '.[report]'
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the packages need not be installed

from advent.cli import OneLineParser
from advent.errors import ConfigError
from advent.utils.serialization import write_atomically, write_text
from ida import cli
from reporting.experiment import Experiment, read_experiments
from reporting.grid import Grid
from reporting.table import latex, result_table


def write_figures(experiments: Sequence[Experiment], folder: Path, examples: int) -> int:
    """All figures of the page as PDF and PNG; returns how many files."""
    from reporting.figures import plots

    written = [
        path for experiment in experiments for plot in plots(experiment, experiments) for path in plot.save(folder)
    ]
    grid = Grid(experiments, examples).drawn()
    if grid is not None:
        written.append(write_atomically(folder / "grid.png", lambda f: grid.save(f, "PNG", optimize=True)))
        written.append(write_atomically(folder / "grid.pdf", lambda f: grid.save(f, "PDF", resolution=200)))
    return len(written)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and write the page; returns the exit code."""

    parser = OneLineParser(prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("experiments", metavar="EXP", nargs="+", type=Path, help="experiment folders written by scripts/pipeline.py")
    add("--out", metavar="FILE", type=Path, required=True, help="the HTML page")
    add("--figures", metavar="DIR", type=Path, help="also write the figures as PDF and PNG")
    add("--latex", metavar="FILE", type=Path, help="also write the table for LaTeX (booktabs)")
    add("--examples", metavar="N", type=int, default=6, help="largest number of images in the grid (default: 6)")
    args = parser.parse_args(argv)

    def body() -> None:
        from reporting.page import write_page

        if args.examples < 1:
            raise ConfigError(f"--examples: {args.examples} is too small; at least 1")
        experiments = read_experiments(args.experiments)
        page = write_page(experiments, args.out, args.examples)
        print(f"page: {page}, {page.stat().st_size / 2**20:.1f} MiB")
        if args.figures is not None:
            print(f"figures: {write_figures(experiments, args.figures, args.examples)} files in {args.figures}")
        if args.latex is not None:
            tables = [(e.name, result_table(e)) for e in experiments if e.trained]
            if not tables:
                raise ConfigError(f"--latex {args.latex}: no stage has been evaluated, so there is no table")
            print(f"table: {write_text(args.latex, latex(tables))}")

    return cli.run_cli("scripts/report.py", body, argv)


if __name__ == "__main__":
    sys.exit(main())
