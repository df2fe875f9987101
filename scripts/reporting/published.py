"""The paper's published tables (configs/paper/), and comparison of results with them."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advent.utils.paths import CONFIGS
from advent.utils.tables import markdown_table

PAPER = CONFIGS / "paper"
# Stage name -> the paper's row. The paper's DAF includes stage 1.
ROWS = {"isl": "DAF", "ida": "DAF+IDA"}


@dataclass(frozen=True)
class Protocol:
    """A protocol of the paper: pipeline config, name and resolution in the paper."""

    pipeline: str
    name: str
    resolution: str


PROTOCOLS = {
    "EP1": Protocol("ep1", "EP1", "full"),
    "EP2": Protocol("ep2", "EP2", "full"),
    "EP2-low": Protocol("ep2_low", "EP2", "640x320"),
    "EP3": Protocol("ep3", "EP3", "full"),
    "EP3-low": Protocol("ep3_low", "EP3", "640x320"),
}


def paper_rows(protocol: Protocol) -> dict[str, dict[str, float | None]]:
    """Published rows: model -> column (mIoU, mIoU13, classes) -> percent; None where the paper has no value."""
    file = PAPER / ("ep1.csv" if protocol.name == "EP1" else "ep2_ep3.csv")
    selection = {"protocol": protocol.name, "resolution": protocol.resolution}
    with open(file, newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if all(row.get(k, v) == v for k, v in selection.items())]
    text = {"protocol", "resolution", "model", "depth"}
    return {
        row["model"]: {key: float(value) if value else None for key, value in row.items() if key not in text}
        for row in rows
    }


def published_spread(protocol: Protocol) -> dict[str, float] | None:
    """CTRL's spread over five runs of this protocol, by column; None if no spread is published."""
    with open(PAPER / "spread.csv", newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            if (row["protocol"], row["resolution"]) == (protocol.name, protocol.resolution):
                spreads = {"mIoU": row["spread"], "mIoU13": row["spread13"]}
                return {key: float(value) for key, value in spreads.items() if value}
    return None


def columns(result: Mapping[str, Any]) -> dict[str, float | None]:
    """A result record in the paper's columns."""
    subsets = {key: result[key] for key in result if key.startswith("mIoU")}
    return {**result["iou"], "mIoU": result["miou"], **subsets}


def comparison(protocol: Protocol, runs: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table of results and the paper's rows: mean (and deviation over seeds), difference oracle to oracle.

    `runs`: the pipeline's record of every seed. The paper's numbers are of the best snapshot, selected on the labels
    that it is scored on. Results are listed for that selection and for the last snapshot (no selection).
    """
    published = paper_rows(protocol)
    order = [key for key in next(iter(published.values())) if key in columns(next(iter(runs[0]["results"].values())))]
    lines: list[list[str]] = []
    for stage in runs[0]["results"]:
        row = ROWS.get(stage)
        means: dict[str, float | None] = {}
        for kind in ("results", "oracle"):
            records = [columns(run[kind][stage]) for run in runs if stage in run.get(kind, {})]
            if records:
                selected = "last" if kind == "results" else "best (oracle)"
                cells = [_mean_and_deviation([record[key] for record in records]) for key in order]
                lines.append([f"ours {stage}, {selected}", *cells])
                means = {key: _mean([record[key] for record in records]) for key in order}
        if row in published:
            lines.append([f"paper {row} (oracle)", *[_number(published[row][key]) for key in order]])
            differences = [_difference(means[key], published[row][key]) for key in order]
            lines.append([f"difference {stage}", *differences])
    lines += [
        [f"paper {name}", *[_number(values[key]) for key in order]]
        for name, values in published.items()
        if name not in ROWS.values()
    ]
    return markdown_table(["model", *order], lines)


def conclusion(protocol: Protocol, runs: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: difference of the oracle result to the paper's last row, and whether it is within the spread."""
    stage = list(ROWS)[-1]
    kind = "oracle" if all(stage in run.get("oracle", {}) for run in runs) else "results"
    ours = _mean([columns(run[kind][stage])["mIoU"] for run in runs])
    theirs = paper_rows(protocol)[ROWS[stage]]["mIoU"]
    assert theirs is not None
    if ours is None:
        return "No class was scored: nothing to compare."
    spread = published_spread(protocol)
    chosen = "best snapshot (oracle)" if kind == "oracle" else "last snapshot, while the paper reports its best"
    seeds = f"{len(runs)} seed{'s' * (len(runs) > 1)}"
    sentence = f"{ROWS[stage]}: ours {ours:.1f} mIoU ({chosen}, {seeds}), paper {theirs:.1f}: {ours - theirs:+.1f}"
    if spread is None:
        return f"{sentence}. No spread of this protocol is published for comparison."
    place = "within" if abs(ours - theirs) <= spread["mIoU"] else "beyond"
    return f"{sentence}, {place} the spread of CTRL's five runs of this protocol (±{spread['mIoU']})."


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _mean_and_deviation(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return _number(known[0] if known else None)
    return f"{statistics.fmean(known):.1f}±{statistics.stdev(known):.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _difference(ours: float | None, theirs: float | None) -> str:
    return "-" if ours is None or theirs is None else f"{ours - theirs:+.1f}"
