"""The benchmark's results files as tables and one plot, and a page whose marked parts they fill."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from advent.errors import ConfigError
from advent.utils.serialization import write_atomically, write_text
from advent.utils.tables import markdown_table
from benchmarking.runs import Benchmark, Run, Table

MARK = re.compile(r"(<!-- (\w+): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def spread(values: Sequence[float], sign: bool = False) -> str:
    """Mean and sample standard deviation: "41.2 ± 0.8"; of one value the value alone, of none "-"."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):{'+' if sign else ''}.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def scores_table(benchmark: Benchmark, table: Table) -> str:
    """Per row: mIoU of the last snapshot and of the oracle's choice, then every class (last snapshot)."""
    rows, classes = [], []
    for name in table.rows:
        found = _scored(benchmark, name)
        if not found:
            rows.append([benchmark.by_name[name].label, "0"])
            continue
        classes = list(next(iter(found.values()))["last"]["iou"])
        mious = [spread([one[which]["miou"] for one in found.values()]) for which in ("last", "oracle")]
        per_class = [_mean_iou(found, name) for name in classes]
        rows.append([benchmark.by_name[name].label, str(len(found)), *mious, *per_class])
    header = ["method", "seeds", "mIoU, last", "mIoU, best (oracle)", *classes]
    return markdown_table(header, [row + ["-"] * (len(header) - len(row)) for row in rows])


def _scored(benchmark: Benchmark, name: str) -> dict[int, dict[str, Any]]:
    """The results of a cell that trains; none of one that ranks."""
    return {seed: one for seed, one in benchmark.found(name).items() if "last" in one}


def _mean_iou(found: dict[int, dict[str, Any]], name: str) -> str:
    values = [one["last"]["iou"][name] for one in found.values() if one["last"]["iou"][name] is not None]
    return f"{statistics.mean(values):.1f}" if values else "-"


def differences_table(benchmark: Benchmark, table: Table) -> str:
    """Per pair: the difference of the last snapshots' mIoU for every seed, its mean and spread."""
    rows = []
    for a, b in table.differences:
        found = differences(benchmark, a, b)
        values = [f"{found[seed]:+.1f}" if seed in found else "-" for seed in benchmark.seeds]
        labels = [benchmark.by_name[name].label for name in (a, b)]
        rows.append([f"{labels[0]} - {labels[1]}", *values, spread(list(found.values()), sign=True)])
    return markdown_table(["difference of mIoU", *[f"seed {seed}" for seed in benchmark.seeds], "mean"], rows)


def differences(benchmark: Benchmark, a: str, b: str) -> dict[int, float]:
    """mIoU of cell `a` minus that of cell `b`, last snapshots, for the seeds that have both."""
    left, right = benchmark.found(a), benchmark.found(b)
    return {seed: left[seed]["last"]["miou"] - right[seed]["last"]["miou"] for seed in left if seed in right}


def rankings_table(benchmark: Benchmark, table: Table) -> str:
    """Per ranking: true mIoU and error of its two halves, and how its score goes with the error."""
    columns = {
        "mIoU, easy half": "miou_easy",
        "mIoU, hard half": "miou_hard",
        "wrong pixels, easy (%)": "error_easy",
        "wrong pixels, hard (%)": "error_hard",
    }
    rows = []
    for name in table.rows:
        found = [one["ranking"] for one in benchmark.found(name).values() if one.get("ranking")]
        cells = [spread([one[key] for one in found]) for key in columns.values()]
        known = [one["spearman"] for one in found if one["spearman"] is not None]
        correlation = f"{statistics.mean(known):+.2f}" if known else "-"
        rows.append([benchmark.by_name[name].label, str(len(found)), *cells, correlation])
    return markdown_table(["ranking", "seeds", *columns, "Spearman"], rows)


def labels_table(benchmark: Benchmark, table: Table) -> str:
    """Per self-learning cell: its newest pseudo labels' coverage of every true class / share of right ones."""
    rows, classes = [], []
    for name in table.rows:
        found = [one["labels"] for one in benchmark.found(name).values() if one.get("labels")]
        if not found:
            continue
        classes = list(found[0]["coverage"])
        pairs = [f"{_mean(found, 'coverage', c)} / {_mean(found, 'precision', c)}" for c in classes]
        kept, right = (spread([one[key] for one in found]) for key in ("kept", "right"))
        rows.append([benchmark.by_name[name].label, kept, right, *pairs])
    return markdown_table(["labels", "kept (%)", "right (%)", *classes], rows) if rows else "-"


def _mean(found: Sequence[dict[str, Any]], key: str, name: str) -> str:
    values = [one[key][name] for one in found if one[key][name] is not None]
    return f"{statistics.mean(values):.0f}" if values else "-"


def hours_table(benchmark: Benchmark, table: Table) -> str:
    """Minutes by the clock and of computing that each cell took where it was made, and the hours of all."""
    names = {*table.rows}
    cells: list[Run] = [run for run in benchmark.cells if run.name in names or not names]
    columns = {"minutes": "seconds", "core minutes": "cpu_seconds"}
    rows, hours = [], dict.fromkeys(columns, 0.0)
    for run in cells:
        found = benchmark.found(run.name).values()
        minutes = {title: [one[key] / 60 for one in found] for title, key in columns.items()}
        rows.append([run.label, str(len(found)), *map(spread, minutes.values())])
        hours = {title: hours[title] + sum(values) / 60 for title, values in minutes.items()}
    total = f"All together: {hours['minutes']:.1f} hours, {hours['core minutes']:.1f} core hours."
    return f"{markdown_table(['cell', 'seeds', *columns], rows)}\n\n{total}"


BLOCKS: dict[str, Callable[[Benchmark, Table], str]] = {
    "scores": scores_table,
    "differences": differences_table,
    "rankings": rankings_table,
    "labels": labels_table,
    "hours": hours_table,
}


def fill_page(benchmark: Benchmark, page: Path) -> Path:
    """Renew what stands between `<!-- BLOCK: TABLE -->` and `<!-- end -->`. Raises ConfigError on an unknown mark."""
    tables = {table.name: table for table in benchmark.tables} | {"all": Table("all", ())}

    def renewed(match: re.Match[str]) -> str:
        opening, block, name, closing = match.groups()
        if block not in BLOCKS or name not in tables:
            raise ConfigError(f"{page}: {opening.strip()}: want one of {', '.join(BLOCKS)}, and a table's name")
        return f"{opening}{BLOCKS[block](benchmark, tables[name])}\n{closing}"

    text = page.read_text(encoding="utf-8")
    if not MARK.search(text):
        raise ConfigError(f"{page}: holds no mark such as <!-- scores: main --> ... <!-- end -->")
    write_text(page, MARK.sub(renewed, text))
    return page


def plot(benchmark: Benchmark, table: Table, out: Path) -> Path:
    """A PNG: every seed's mIoU as a dot, the mean as a line, the oracle's choice hollow. Needs matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("--plot: needs matplotlib; pip install matplotlib") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in table.rows if _scored(benchmark, name)]
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(names) + 1.2), constrained_layout=True)
    for at, name in enumerate(names):
        found = _scored(benchmark, name).values()
        last, oracle = ([one[which]["miou"] for one in found] for which in ("last", "oracle"))
        axes.plot(oracle, [at + 0.18] * len(oracle), "o", mfc="none", mec="#999999", ms=6, label="best (oracle)")
        axes.plot(last, [at] * len(last), "o", color="#4477aa", ms=7, label="last snapshot, each seed")
        axes.plot([statistics.mean(last)] * 2, [at - 0.3, at + 0.3], color="#222222", lw=2, label="mean")
    axes.set_yticks(range(len(names)), [benchmark.by_name[name].label for name in names])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("mIoU (%) on CamVid's val, 7 classes")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:3], labels[:3], fontsize=8)
    write_atomically(out, lambda handle: figure.savefig(handle, format="png", dpi=110))
    plt.close(figure)
    return out
