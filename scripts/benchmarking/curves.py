"""docs/data/time_to_accuracy.json: development mIoU over work along chains, and when one passes the other."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarking.cost import Work
from benchmarking.definition import Benchmark

FILE = Path("docs/data/time_to_accuracy.json")
MODERN, FAITHFUL = "modern", "faithful"  # keys of the curves that are compared
Points = list[tuple[float, float]]


def curve_points(benchmark: Benchmark, key: str) -> dict[int, Points]:
    """Seed -> (work, development mIoU) of every snapshot along a chain, for the seeds of which all cells are known."""
    end = benchmark.by_name[benchmark.curves[key].last]
    cells = [run for run in (*benchmark.chain(end), end) if run.trains]
    work = Work(benchmark)
    before = [0.0]
    for run in cells:
        units = work.of_cell(run)
        if units is None:
            return {}
        before.append(before[-1] + units)
    curves = {}
    for seed in benchmark.results_of(end.name):
        records = [benchmark.results_of(run.name, [seed]).get(seed, {}) for run in cells]
        if all("curve" in record for record in records):
            curves[seed] = [
                (start + done * work.costs[run.name], miou)
                for run, start, record in zip(cells, before, records, strict=False)
                for done, miou in record["curve"]
            ]
    return curves


def passing_work(points: Points, score: float) -> float | None:
    """The work of the first snapshot that reaches a score; None if none does."""
    return next((work for work, miou in points if miou >= score), None)


def time_to_accuracy(benchmark: Benchmark) -> dict[str, Any]:
    """The curves, and per seed the share of the faithful chain's work at which the modern chain reaches its last score.

    Snapshots only, without interpolation: the true share is at most the reported one.
    """
    curves = {key: curve_points(benchmark, key) for key in benchmark.curves}
    passed: dict[str, Any] = {}
    for seed, points in curves.get(FAITHFUL, {}).items():
        if seed in curves.get(MODERN, {}):
            total, score = points[-1]
            work = passing_work(curves[MODERN][seed], score)
            ratio = None if work is None else round(work / total, 4)
            own = None if work is None else round(work, 1)
            passed[str(seed)] = {
                "score": round(score, 2),
                "faithful_work": round(total, 1),
                "work": own,
                "ratio": ratio,
            }
    known = [entry["ratio"] for entry in passed.values()]
    mean = round(statistics.mean(known), 4) if known and None not in known else None
    return {
        "schema": 1,
        "set": "development",
        "curves": {
            key: {
                "label": benchmark.curves[key].label,
                "seeds": {str(s): [[round(w, 1), round(m, 2)] for w, m in points] for s, points in seeds.items()},
            }
            for key, seeds in curves.items()
        },
        "passed": passed,
        "mean_ratio": mean,
    }
