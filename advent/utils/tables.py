"""Result tables in Markdown, aligned for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned Markdown table; the first column is left-aligned, the others right-aligned."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rule = ["-" * widths[0], *["-" * (width - 1) + ":" for width in widths[1:]]]

    def shown(line: Sequence[str]) -> str:
        first, *others = line
        cells = [first.ljust(widths[0]), *[cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]]
        return f"| {' | '.join(cells)} |"

    return "\n".join([shown(lines[0]), shown(rule), *[shown(line) for line in lines[1:]]])


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
