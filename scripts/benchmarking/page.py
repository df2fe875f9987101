"""Benchmark tables and plot from its results files; fills the marked blocks of a Markdown page."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from advent.errors import ConfigError
from advent.utils.serialization import write_atomically, write_text
from advent.utils.tables import markdown_table, mean_std
from benchmarking.runs import Benchmark, Run, TableSpec

MARK = re.compile(r"(<!-- (\w+): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def scores_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Per row: mIoU of the last and of the best (oracle) snapshot, then IoU per class (last snapshot)."""
    rows, classes = [], []
    for name in table.rows:
        results = _scored(benchmark, name)
        if not results:
            rows.append([benchmark.by_name[name].label, "0"])
            continue
        classes = list(next(iter(results.values()))["last"]["iou"])
        mious = [mean_std([r[key]["miou"] for r in results.values() if key in r]) for key in ("last", "oracle")]
        per_class = [_mean_iou(results, name) for name in classes]
        rows.append([benchmark.by_name[name].label, str(len(results)), *mious, *per_class])
    header = ["method", "seeds", "mIoU, last", "mIoU, best (oracle)", *classes]
    return markdown_table(header, [row + ["-"] * (len(header) - len(row)) for row in rows])


def _scored(benchmark: Benchmark, name: str) -> dict[int, dict[str, Any]]:
    """The results of a training run by seed; empty for a ranking cell."""
    return {seed: result for seed, result in benchmark.results_of(name).items() if "last" in result}


def _mean_iou(results: dict[int, dict[str, Any]], name: str) -> str:
    values = [result["last"]["iou"][name] for result in results.values() if result["last"]["iou"][name] is not None]
    return f"{statistics.mean(values):.1f}" if values else "-"


def differences_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Per pair: difference of the last snapshots' mIoU for every seed, its mean and standard deviation."""
    rows = []
    for a, b in table.differences:
        by_seed = differences(benchmark, a, b)
        values = [f"{by_seed[seed]:+.1f}" if seed in by_seed else "-" for seed in benchmark.seeds]
        labels = [benchmark.by_name[name].label for name in (a, b)]
        rows.append([f"{labels[0]} - {labels[1]}", *values, mean_std(list(by_seed.values()), sign=True)])
    return markdown_table(["difference of mIoU", *[f"seed {seed}" for seed in benchmark.seeds], "mean"], rows)


def differences(benchmark: Benchmark, a: str, b: str) -> dict[int, float]:
    """mIoU of cell `a` minus that of cell `b`, last snapshots, for the seeds with both."""
    left, right = benchmark.results_of(a), benchmark.results_of(b)
    return {seed: left[seed]["last"]["miou"] - right[seed]["last"]["miou"] for seed in left if seed in right}


def rankings_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Per ranking: mIoU and error of both halves, and Spearman's correlation of score and error."""
    columns = {
        "mIoU, easy half": "miou_easy",
        "mIoU, hard half": "miou_hard",
        "wrong pixels, easy (%)": "error_easy",
        "wrong pixels, hard (%)": "error_hard",
    }
    rows = []
    for name in table.rows:
        rankings = [result["ranking"] for result in benchmark.results_of(name).values() if result.get("ranking")]
        cells = [mean_std([ranking[key] for ranking in rankings]) for key in columns.values()]
        known = [ranking["spearman"] for ranking in rankings if ranking["spearman"] is not None]
        correlation = f"{statistics.mean(known):+.2f}" if known else "-"
        rows.append([benchmark.by_name[name].label, str(len(rankings)), *cells, correlation])
    return markdown_table(["ranking", "seeds", *columns, "Spearman"], rows)


def labels_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Per self-learning cell: coverage / precision of its newest pseudo labels for every class."""
    rows, classes = [], []
    for name in table.rows:
        qualities = [result["labels"] for result in benchmark.results_of(name).values() if result.get("labels")]
        if not qualities:
            continue
        classes = list(qualities[0]["coverage"])
        pairs = [f"{_mean(qualities, 'coverage', c)} / {_mean(qualities, 'precision', c)}" for c in classes]
        kept, right = (mean_std([quality[key] for quality in qualities]) for key in ("kept", "right"))
        rows.append([benchmark.by_name[name].label, kept, right, *pairs])
    return markdown_table(["labels", "kept (%)", "right (%)", *classes], rows) if rows else "-"


def _mean(qualities: Sequence[dict[str, Any]], key: str, name: str) -> str:
    values = [quality[key][name] for quality in qualities if quality[key][name] is not None]
    return f"{statistics.mean(values):.0f}" if values else "-"


def hours_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Wall-clock and core minutes of each cell, and total hours."""
    names = {*table.rows}
    cells: list[Run] = [run for run in benchmark.cells if run.name in names or not names]
    columns = {"minutes": "seconds", "core minutes": "core_seconds"}
    rows, hours = [], dict.fromkeys(columns, 0.0)
    for run in cells:
        results = benchmark.results_of(run.name).values()
        minutes = {title: [r[key] / 60 for r in results if r[key] is not None] for title, key in columns.items()}
        rows.append([run.label, str(len(results)), *map(mean_std, minutes.values())])
        hours = {title: hours[title] + sum(values) / 60 for title, values in minutes.items()}
    total = f"Total: {hours['minutes']:.1f} hours, {hours['core minutes']:.1f} core hours."
    return f"{markdown_table(['cell', 'seeds', *columns], rows)}\n\n{total}"


BLOCKS: dict[str, Callable[[Benchmark, TableSpec], str]] = {
    "scores": scores_table,
    "differences": differences_table,
    "rankings": rankings_table,
    "labels": labels_table,
    "hours": hours_table,
}


def fill_page(benchmark: Benchmark, page: Path) -> Path:
    """Update the text between `<!-- BLOCK: TABLE -->` and `<!-- end -->`. Raises ConfigError on an unknown marker."""
    tables = {table.name: table for table in benchmark.tables} | {"all": TableSpec(name="all")}

    def renewed(match: re.Match[str]) -> str:
        opening, block, name, closing = match.groups()
        if block not in BLOCKS or name not in tables:
            raise ConfigError(f"{page}: {opening.strip()}: expected one of {', '.join(BLOCKS)}, and a table's name")
        return f"{opening}{BLOCKS[block](benchmark, tables[name])}\n{closing}"

    text = page.read_text(encoding="utf-8")
    if not MARK.search(text):
        raise ConfigError(f"{page}: contains no marker such as <!-- scores: main --> ... <!-- end -->")
    write_text(page, MARK.sub(renewed, text))
    return page


def plot(benchmark: Benchmark, table: TableSpec, out: Path) -> Path:
    """Plot mIoU as PNG: a dot per seed, a line for the mean, hollow dots for the oracle. Needs matplotlib."""
    try:
        from matplotlib.figure import Figure  # an optional extra
    except ImportError:
        raise ConfigError("--plot: needs matplotlib; pip install -e '.[report]'") from None

    names = [name for name in table.rows if _scored(benchmark, name)]
    figure = Figure((8, 0.42 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    for at, name in enumerate(names):
        results = _scored(benchmark, name).values()
        last, oracle = ([r[key]["miou"] for r in results if key in r] for key in ("last", "oracle"))
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
    return out
