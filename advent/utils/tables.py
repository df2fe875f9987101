"""Result tables in Markdown, aligned for the terminal, and in LaTeX."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import SEPARATING_LINE, tabulate

RULE = [SEPARATING_LINE]  # as a row of `latex_table`: \midrule


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned Markdown table; the first column is left-aligned, the others right-aligned."""
    return _table(header, rows, "pipe")


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A LaTeX table, special characters escaped (\\usepackage{booktabs}); typographic minus and dash in ASCII."""
    text = _table(header, rows, "latex_booktabs").replace("−", "$-$").replace("–", "--")
    return f"{text}\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], style: str) -> str:
    aligned = ["left", *["right"] * (len(header) - 1)]
    # Cells are text already; leading spaces are kept, since they mark the parts of a measured step.
    return tabulate(
        rows, header, style, colalign=aligned if rows else None, disable_numparse=True, preserve_whitespace=True
    )


def mean_std(values: Sequence[float], sign: bool = False, places: int = 1) -> str:
    """Mean and sample standard deviation: "41.2 ± 0.8"; a single value without deviation; "-" if empty."""
    if not values:
        return "-"
    mean = signed(statistics.mean(values), places) if sign else f"{statistics.mean(values):.{places}f}"
    return f"{mean} ± {statistics.stdev(values):.{places}f}" if len(values) > 1 else mean


def signed(value: float, places: int = 1) -> str:
    """The number with its sign, "+0.0" for all that rounds to zero."""
    return f"{round(value, places) + 0.0:+.{places}f}"  # the sum turns -0.0 into 0.0


def results_table(rows: Mapping[str, Mapping[str, Any]], accuracy: bool = False) -> str:
    """Markdown table of mIoU, subset means and per-class IoU, in percent.

    rows: row name -> result in the results schema. `accuracy` adds the pixel accuracy as last column.
    """
    first = next(iter(rows.values()))
    subsets = [key for key in first if key.startswith("mIoU")]
    header = ["model", "mIoU", *subsets, *first["iou"], *(["pixel accuracy"] if accuracy else [])]
    lines = []
    for name, result in rows.items():
        scores = [result["miou"], *[result[key] for key in subsets], *result["iou"].values()]
        scores += [result["pixel_accuracy"]] if accuracy else []
        lines.append([name, *["-" if score is None else f"{score:.1f}" for score in scores]])
    return markdown_table(header, lines)
