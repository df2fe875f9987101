"""Plot of a benchmark's scores over work."""

from __future__ import annotations

from pathlib import Path

from advent.errors import ConfigError
from advent.utils.serialization import write_atomically
from benchmarking.cost import Work
from benchmarking.curves import curve_points
from benchmarking.definition import Benchmark, TableSpec
from benchmarking.tables import rows_with_results


def plot(benchmark: Benchmark, table: TableSpec, out: Path) -> Path:
    """Plot val mIoU over work as PNG, a dot per row and seed; beside it the development mIoU along the chains.

    Needs matplotlib. Raises ConfigError without costs or results.
    """
    try:
        from matplotlib.figure import Figure  # an optional extra
    except ImportError:
        raise ConfigError("--plot: needs matplotlib; pip install -e '.[report]'") from None

    work = Work(benchmark)
    found = [(run, results, work.of_chain(run)) for run, results in rows_with_results(benchmark, table)]
    known = [(run, results, units) for run, results, units in found if units is not None]
    if not known:
        raise ConfigError(f"--plot: no cell of {benchmark.name} has both results and a cost; run it, and --cost")
    curves = {key: curve_points(benchmark, key) for key in benchmark.curves}
    curves = {key: seeds for key, seeds in curves.items() if seeds}
    figure = Figure((14 if curves else 9, 5), layout="constrained")
    panels = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
    colours = [f"C{index % 10}" for index in range(len(known))]
    for index, ((run, results, units), colour) in enumerate(zip(known, colours, strict=True)):
        marker = "os^D"[index // 10 % 4]
        scores = [result["last"]["miou"] for result in results.values()]
        panels[0].plot([units] * len(scores), scores, marker, color=colour, ms=6, alpha=0.8, label=run.label)
    panels[0].set_ylabel("mIoU (%) on val, each seed")
    for index, (key, seeds) in enumerate(curves.items()):
        for number, points in enumerate(seeds.values()):
            label = benchmark.curves[key].label if number == 0 else None
            panels[1].plot(*zip(*points, strict=True), ".-", color=f"C{index}", lw=1, label=label)
    if curves:
        panels[1].set_ylabel("mIoU (%) on the development set, each seed")
    for axes in panels:
        axes.set_xlabel("work (steps of source only)")
        axes.grid(alpha=0.3)
    # Beside the panel: with twenty rows the legend would hide the dots.
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside left center", fontsize=7)
    if curves:
        panels[1].legend(fontsize=7)
    write_atomically(out, lambda handle: figure.savefig(handle, format="png", dpi=110))
    return out
