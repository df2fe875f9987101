"""Benchmark tables in Markdown, made from the results files."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from advent.utils.serialization import read_json
from advent.utils.tables import markdown_table, mean_std, signed
from benchmarking.cost import FILE as COSTS
from benchmarking.cost import Work
from benchmarking.curves import time_to_accuracy
from benchmarking.definition import DEVELOPMENT, Benchmark, Run, TableSpec, on_one_processor
from benchmarking.summary import differences, gaps_closed, last_miou

NOT_YET = "*Not yet run.*"
MARKED = "†"
SOURCE = "source_statistics"  # a cell's score with the batch-norm statistics of its checkpoint


def results_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Per row: mIoU on val and development, IoU of the table's classes, share of the gap per seed, work."""
    work, gaps = Work(benchmark), gaps_closed(benchmark)
    rows = []
    for run, results in rows_with_results(benchmark, table):
        development = [result[DEVELOPMENT]["miou"] for result in results.values() if DEVELOPMENT in result]
        shares = gaps.get(run.name, {})
        gap = ", ".join(str(round(100 * shares[seed])) for seed in results if seed in shares)  # never "-0"
        units = work.of_chain(run)
        rows.append(
            [
                run.label,
                str(len(results)),
                mean_std([result["last"]["miou"] for result in results.values()]),
                mean_std(development),
                *[_mean_iou(results, name) for name in table.classes],
                gap or "-",
                "-" if units is None else f"{units:,.0f}",
            ]
        )
    header = ["method", "seeds", "mIoU, val", "mIoU, dev", *table.classes, "gap closed per seed (%)", "work"]
    return _with_missing(benchmark, table, rows, header)


def scores_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Per row: mIoU of the last and, where it was scored, of the best (oracle) snapshot, then IoU per class (last)."""
    found = list(rows_with_results(benchmark, table))
    keys = {"mIoU, last": "last", "mIoU, best (oracle)": "oracle"}
    keys = {title: key for title, key in keys.items() if any(key in r for _, rs in found for r in rs.values())}
    classes = list(next(iter(found[0][1].values()))["last"]["iou"]) if found else []
    rows = [
        [
            run.label,
            str(len(results)),
            *[mean_std([result[key]["miou"] for result in results.values() if key in result]) for key in keys.values()],
            *[_mean_iou(results, name) for name in classes],
        ]
        for run, results in found
    ]
    return _with_missing(benchmark, table, rows, ["method", "seeds", *keys, *classes])


def rows_with_results(benchmark: Benchmark, table: TableSpec) -> Iterator[tuple[Run, dict[int, dict[str, Any]]]]:
    """(cell, results by seed) of a table's training rows that have any, for the benchmark's seeds."""
    for name in table.rows:
        results = _scored(benchmark, name)
        if results:
            yield benchmark.by_name[name], results


def _with_missing(benchmark: Benchmark, table: TableSpec, rows: list[list[str]], header: Sequence[str]) -> str:
    """A table of the rows with results, and a line naming the rows without."""
    known = {row[0] for row in rows}
    missing = [label for name in table.rows if (label := benchmark.by_name[name].label) not in known]
    if not rows:
        return NOT_YET
    return markdown_table(header, rows) + (f"\n\nNot yet run: {'; '.join(missing)}." if missing else "")


def _scored(benchmark: Benchmark, name: str) -> dict[int, dict[str, Any]]:
    """The results of a training run by seed, for the benchmark's seeds; empty for a ranking cell."""
    results = benchmark.results_of(name, benchmark.seeds)
    return {seed: result for seed, result in results.items() if "last" in result}


def _mean_iou(results: dict[int, dict[str, Any]], name: str) -> str:
    values = [result["last"]["iou"][name] for result in results.values() if result["last"]["iou"][name] is not None]
    return f"{statistics.mean(values):.1f}" if values else "-"


def differences_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Per pair: difference of the last snapshots' mIoU for every seed, its mean and standard deviation.

    Processors round differently, so both runs are of one processor where the results have such a pair; with such
    pairs on several processors it is the mean. Differences between runs on different processors are marked.
    """
    rows = []
    for a, b in table.differences:
        by_seed = differences(benchmark, a, b, seeds=benchmark.seeds)
        if not by_seed:
            continue
        pairs = benchmark.pairs(a, b, benchmark.seeds)
        apart = {seed for seed in by_seed if not on_one_processor(*pairs[seed][0])}
        values = [
            f"{signed(by_seed[seed])}{MARKED if seed in apart else ''}" if seed in by_seed else "-"
            for seed in benchmark.seeds
        ]
        labels = [benchmark.by_name[name].label for name in (a, b)]
        rows.append([f"{labels[0]} - {labels[1]}", *values, mean_std(list(by_seed.values()), sign=True)])
    if not rows:
        return NOT_YET
    header = ["difference of mIoU", *[f"seed {seed}" for seed in benchmark.seeds], "mean"]
    return markdown_table(header, rows) + footnote(rows)


def footnote(rows: Sequence[Sequence[str]]) -> str:
    """A line below a table that says what MARKED means, if a value ends with it; else nothing."""
    marked = any(value.endswith(MARKED) for row in rows for value in row)
    return f"\n\n{MARKED} The two runs had different processors." if marked else ""


def repeated_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Per row that ran again on another processor: mIoU of both runs on val, each seed, and on dev, the mean.

    The last column is the largest change of a seed on val: what a change of processor does to a score.
    """
    rows: list[list[str]] = []
    for name in table.rows if benchmark.repeated is not None else ():
        runs = [_scored(part, name) for part in benchmark.with_repeated()]
        seeds = [seed for seed in benchmark.seeds if all(seed in results for results in runs)]
        if not seeds:
            continue
        val = [[last_miou(results[seed]) for seed in seeds] for results in runs]
        dev = [mean_std([results[seed][DEVELOPMENT]["miou"] for seed in seeds]) for results in runs]
        change = max(abs(b - a) for a, b in zip(*val, strict=True))
        texts = [", ".join(f"{score:.1f}" for score in scores) for scores in val]
        rows.append([benchmark.by_name[name].label, *texts, *map(mean_std, val), *dev, f"{change:.1f}"])
    header = ["method", "val, seeds", "val, again", "mean", "mean, again", "dev", "dev, again", "largest change, val"]
    return markdown_table(header, rows) if rows else NOT_YET


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
        if not rankings:
            continue
        cells = [mean_std([ranking[key] for ranking in rankings]) for key in columns.values()]
        known = [ranking["spearman"] for ranking in rankings if ranking["spearman"] is not None]
        correlation = f"{statistics.mean(known):+.2f}" if known else "-"
        rows.append([benchmark.by_name[name].label, str(len(rankings)), *cells, correlation])
    return _with_missing(benchmark, table, rows, ["ranking", "seeds", *columns, "Spearman"])


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
    return markdown_table(["labels", "kept (%)", "right (%)", *classes], rows) if rows else NOT_YET


def _mean(qualities: Sequence[dict[str, Any]], key: str, name: str) -> str:
    values = [quality[key][name] for quality in qualities if quality[key][name] is not None]
    return f"{statistics.mean(values):.0f}" if values else "-"


def hours_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Wall-clock and core minutes of each cell, and total hours; repeated runs count."""
    names = {*table.rows}
    cells: list[Run] = [run for run in benchmark.cells if run.name in names or not names]
    columns = {"minutes": "seconds", "core minutes": "core_seconds"}
    rows, hours = [], dict.fromkeys(columns, 0.0)
    for run in cells:
        results = [result for part in benchmark.with_repeated() for result in part.results_of(run.name).values()]
        if not results:
            continue
        minutes = {title: [r[key] / 60 for r in results if r[key] is not None] for title, key in columns.items()}
        rows.append([run.label, str(len(results)), *map(mean_std, minutes.values())])
        hours = {title: hours[title] + sum(values) / 60 for title, values in minutes.items()}
    if not rows:
        return NOT_YET
    total = f"Total: {hours['minutes']:.1f} hours, {hours['core minutes']:.1f} core hours."
    return f"{markdown_table(['cell', 'runs', *columns], rows)}\n\n{total}"


def statistics_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Rows that were also scored with the checkpoint's batch-norm statistics: mIoU with both, and the difference."""
    rows = []
    for run, results in rows_with_results(benchmark, table):
        pairs = [(r["last"]["miou"], r[SOURCE]["miou"]) for r in results.values() if SOURCE in r]
        if pairs:
            means = [mean_std(list(values)) for values in zip(*pairs, strict=True)]
            gains = mean_std([target - source for target, source in pairs], sign=True)
            rows.append([run.label, str(len(pairs)), *means, gains])
    header = ["method", "seeds", "mIoU, target's statistics", "mIoU, checkpoint's statistics", "difference"]
    return markdown_table(header, rows) if rows else NOT_YET


def soon_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Per seed: the faithful chain's last development score, and the work at which both chains reach it."""
    facts = time_to_accuracy(benchmark)
    rows = [
        [
            seed,
            f"{entry['score']:.1f}",
            f"{entry['faithful_work']:,.0f}",
            "never" if entry["work"] is None else f"{entry['work']:,.0f}",
            "-" if entry["ratio"] is None else f"{100 * entry['ratio']:.0f} %",
        ]
        for seed, entry in facts["passed"].items()
    ]
    header = ["seed", "last score of the faithful chain (dev)", "its work", "work of the modern chain", "share"]
    return markdown_table(header, rows) if rows else NOT_YET


def costs_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Cost of a step, iterations and own work of the table's rows; then where the costs were measured."""
    work, file = Work(benchmark), benchmark.results / COSTS
    rows = []
    for name in table.rows:
        run = benchmark.by_name[name]
        units = work.of_cell(run)
        if units is not None:
            rows.append([run.label, f"{work.costs[name]:.2f}", str(work.iterations(run)), f"{units:,.0f}"])
    if not rows:
        return "*Not yet measured.*"
    facts = read_json(file)
    where = f"Measured on {facts['processor']}, one thread, fp32, PyTorch {facts['torch']}, {facts['date']}."
    return f"{markdown_table(['stage', 'cost of a step', 'iterations', 'own work'], rows)}\n\n{where}"
