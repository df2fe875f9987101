"""Benchmark tables in Markdown about depth: what each use of it adds, and how good predicted depth is."""

from __future__ import annotations

import statistics

from advent.utils.tables import markdown_table
from benchmarking.definition import Benchmark, TableSpec, on_one_processor
from benchmarking.intervals import conclusions
from benchmarking.summary import both_targets, part_intervals, pooled_miou
from benchmarking.tables import MARKED, NOT_YET, footnote, rows_with_results


def depth_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Per use of depth and control: mean of the paired differences, its 95 % interval, the conclusion.

    Then the same for the mean of val and development and for two targets together, and the smallest effect that the
    narrowest interval could show. The conclusion names the measure that it is drawn from if they differ. Intervals with
    a difference between runs on different processors are marked.
    """
    rows, missing = [], []
    pools = {"mean of val and dev": lambda part: part_intervals(benchmark, part, pooled_miou)}
    if any(part.pool_with is not None for part in benchmark.depth.values()):
        pools["val of both targets"] = lambda part: both_targets(benchmark, part)
    for part in benchmark.depth.values():
        intervals = part_intervals(benchmark, part)
        pooled = [pool(part) for pool in pools.values()]
        conclusion = conclusions({"val": intervals} | dict(zip(pools, pooled, strict=True)), list(part.controls))
        if not intervals:
            missing.append(part.label)
        for index, (control, interval) in enumerate(intervals.items()):
            first = index == 0
            pairs = benchmark.pairs(part.cell, part.controls[control]).values()
            apart = not all(on_one_processor(*of_seed[0]) for of_seed in pairs)
            more = [pool.get(control) for pool in pooled]
            widths = [each.half_width for each in (interval, *more) if each is not None]
            known = [width for width in widths if width is not None]
            rows.append(
                [
                    part.label if first else "",
                    control,
                    str(interval.n),
                    f"{interval}{MARKED if apart else ''}",
                    conclusion if first else "",
                    *("-" if each is None else str(each) for each in more),
                    f"{min(known):.1f}" if known else "-",
                ]
            )
    if not rows:
        return NOT_YET
    header = ["depth as", "against", "seeds", "val", "conclusion", *pools, "smallest effect"]
    not_yet = f"\n\nNot yet run: {'; '.join(missing)}." if missing else ""
    return markdown_table(header, rows) + not_yet + footnote(rows)


def depth_scores_table(benchmark: Benchmark, table: TableSpec) -> str:
    """Per row: depth metrics of the target, after scaling by the median."""
    columns = ("abs rel", "RMSE", "RMSE log", "d < 1.25")
    rows = []
    for run, results in rows_with_results(benchmark, table):
        scored = [result["depth"] for result in results.values() if "depth" in result]
        if scored:
            means = [f"{statistics.mean(scores[name] for scores in scored):.3f}" for name in columns]
            rows.append([run.label, str(len(scored)), *means])
    return markdown_table(["method", "seeds", *columns], rows) if rows else NOT_YET
