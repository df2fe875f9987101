"""docs/data/summary.json: the rows and depth conclusions of all benchmarks, for README, docs and tests.

Schema, in percent, gaps as shares, work in source-only steps; a row's work and core seconds include the cells before
it. Cells without results are absent, and so is a target without any. A single seed has no interval: low and high are
null. Without a development set or a measured cost, `dev` or `work` is null.

    {"targets": {TARGET: {"source_only": ROW, "upper_bound": ROW, "best_chain": ROW,
                          "rows": {ROW: {"label", "seeds": {SEED: {"miou", "dev", "iou": {CLASS}, "gap_closed", "work",
                                                                   "core_seconds", "processor"}}}}}},
     "depth": {PART: {"controls": {CONTROL: {"mean", "low", "high", "n"}}, "conclusion", "pooled": {CONTROL: ..},
                      "pooled_conclusion", "both_targets": {CONTROL: ..}}}}

`controls` are differences on val, and the conclusion is theirs. A seed that ran on several processors counts once.
`pooled` are those of the means of val and development, per seed, with a conclusion of their own; a benchmark without a
development set has none (null). `both_targets` are the differences on val of two targets together, each network being
one measurement; only parts that were run on both have them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from advent.errors import ConfigError, hint
from benchmarking.cost import Work
from benchmarking.definition import DEVELOPMENT, Benchmark, DepthPart, Result, Run, load_benchmark
from benchmarking.intervals import Interval, conclude, paired_interval

FILE = Path("docs/data/summary.json")
Score = Callable[[Result], float | None]  # of a results file; None if it lacks the score


def summary(benchmarks: Sequence[Benchmark]) -> dict[str, Any]:
    """The summary of all results that exist. Raises ConfigError if two benchmarks share a target or a depth part."""
    targets: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for benchmark in benchmarks:
        if benchmark.target is None or benchmark.roles is None:
            raise ConfigError(f"{benchmark.name}: has no target, so it is no part of {FILE}; add target and roles")
        rows = summary_rows(benchmark)
        _refuse_twice(benchmark, {benchmark.target}, targets)
        _refuse_twice(benchmark, set(benchmark.depth), parts)
        if rows:
            targets[benchmark.target] = {**benchmark.roles.model_dump(), "rows": rows}
        for name, part in benchmark.depth.items():
            controls = part_intervals(benchmark, part)
            if controls:
                pooled = part_intervals(benchmark, part, pooled_miou)
                parts[name] = {
                    "controls": {control: _rounded(interval) for control, interval in controls.items()},
                    "conclusion": conclude(controls, list(part.controls)),
                    "pooled": {control: _rounded(interval) for control, interval in pooled.items()},
                    "pooled_conclusion": conclude(pooled, list(part.controls)) if pooled else None,
                    "both_targets": {
                        control: _rounded(interval) for control, interval in both_targets(benchmark, part).items()
                    },
                }
    return {"targets": targets, "depth": parts}


def _refuse_twice(benchmark: Benchmark, names: set[str], earlier: dict[str, Any]) -> None:
    for name in sorted(names & set(earlier)):
        raise ConfigError(f"{benchmark.name}: {name} is defined by another benchmark, too; rename one of them")


def summary_rows(benchmark: Benchmark) -> dict[str, Any]:
    """Row -> label and seeds, of every training cell with results."""
    work, gaps = Work(benchmark), gaps_closed(benchmark)
    rows: dict[str, Any] = {}
    for run in benchmark.cells:
        results = benchmark.results_of(run.name) if run.trains else {}
        if results:
            units = work.of_chain(run)
            seeds = {
                str(seed): {
                    "miou": _round(result["last"]["miou"], 2),
                    "dev": _round(result.get(DEVELOPMENT, {}).get("miou"), 2),
                    "iou": {name: _round(value, 2) for name, value in result["last"]["iou"].items()},
                    "gap_closed": _round(gaps.get(run.name, {}).get(seed), 4),
                    "work": _round(units, 1),
                    "core_seconds": _round(_core_seconds(benchmark, run, seed), 1),
                    "processor": result["processor"],
                }
                for seed, result in results.items()
            }
            rows[run.name] = {"label": run.label, "seeds": seeds}
    return rows


def gaps_closed(benchmark: Benchmark) -> dict[str, dict[int, float]]:
    """Cell -> seed -> share of the gap closed: (row - source only) / (target's labels - source only), of one seed.

    Empty for a benchmark without roles.
    """
    if benchmark.roles is None:
        return {}
    source = miou_by_seed(benchmark, benchmark.roles.source_only)
    bound = miou_by_seed(benchmark, benchmark.roles.upper_bound)
    gap = {seed: bound[seed] - source[seed] for seed in source if seed in bound and bound[seed] != source[seed]}
    return {
        run.name: {
            seed: (miou - source[seed]) / gap[seed]
            for seed, miou in miou_by_seed(benchmark, run.name).items()
            if seed in gap
        }
        for run in benchmark.cells
        if run.trains
    }


def miou_by_seed(benchmark: Benchmark, name: str) -> dict[int, float]:
    """Seed -> mIoU of a training cell's last snapshot."""
    return {seed: last_miou(result) for seed, result in benchmark.results_of(name).items()}


def last_miou(result: Result) -> float:
    """mIoU of the last snapshot on val."""
    return float(result["last"]["miou"])


def pooled_miou(result: Result) -> float | None:
    """Mean of the mIoU on val and on the development set; None without a development set.

    The two share the network, so they are one measurement of a seed, with less noise of the images, and not two.
    """
    return (last_miou(result) + result[DEVELOPMENT]["miou"]) / 2 if DEVELOPMENT in result else None


def part_intervals(benchmark: Benchmark, part: DepthPart, score: Score = last_miou) -> dict[str, Interval]:
    """Control -> interval of the differences of the part's cell to it, over the seeds with both."""
    found = _differences(benchmark, part, score)
    return {control: paired_interval(values) for control, values in found.items()}


def both_targets(benchmark: Benchmark, part: DepthPart) -> dict[str, Interval]:
    """Control -> interval of the differences on val of this benchmark and of the one that the part is pooled with.

    Empty unless both have results. Raises ConfigError if `pool_with` names no part of a shipped benchmark.
    """
    if part.pool_with is None:
        return {}
    name, key = part.pool_with.split(":")
    other = load_benchmark(name)
    if key not in other.depth:
        raise ConfigError(f"{benchmark.name}: pool_with: {name} has no depth part {key!r}; {hint(key, other.depth)}")
    here, there = _differences(benchmark, part, last_miou), _differences(other, other.depth[key], last_miou)
    return {
        control: paired_interval([*values, *there[control]]) for control, values in here.items() if control in there
    }


def _differences(benchmark: Benchmark, part: DepthPart, score: Score) -> dict[str, list[float]]:
    """Control -> differences of the part's cell to it, of the seeds with both; controls without any are absent."""
    found = {name: [*differences(benchmark, part.cell, cell, score).values()] for name, cell in part.controls.items()}
    return {control: values for control, values in found.items() if values}


def differences(
    benchmark: Benchmark, a: str, b: str, score: Score = last_miou, seeds: Sequence[int] | None = None
) -> dict[int, float]:
    """Seed -> score of cell `a` minus that of cell `b`, for the seeds with both; by default of all seeds with results.

    A seed that ran on several processors is one measurement: the mean of its differences on each.
    """
    found = {}
    for seed, pairs in benchmark.pairs(a, b, seeds).items():
        scores = [(score(own), score(other)) for own, other in pairs]
        values = [own - other for own, other in scores if own is not None and other is not None]
        if values:
            found[seed] = statistics.mean(values)
    return found


def _core_seconds(benchmark: Benchmark, run: Run, seed: int) -> float | None:
    """CPU seconds of training, of a cell and the training cells before it; None if one of them has no results."""
    results = [benchmark.results_of(r.name, [seed]) for r in (*benchmark.chain(run), run) if r.trains]
    seconds = [result[seed]["core_seconds"] for result in results if result]
    return float(sum(seconds)) if len(seconds) == len(results) and None not in seconds else None


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _rounded(interval: Interval) -> dict[str, Any]:
    return {key: _round(value, 3) if key != "n" else value for key, value in asdict(interval).items()}
