"""Report tables: results and the paper's rows with differences, for the HTML page and for LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advent.utils.tables import RULE, latex_table
from reporting.experiment import Experiment
from reporting.published import ROWS, columns, paper_rows

OURS, PAPER, DIFFERENCE = "ours", "paper", "difference"


@dataclass(frozen=True)
class Row:
    """A row of percentages, or of differences in points; None means no value."""

    label: str
    kind: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Table:
    """A table with columns mIoU, means over class subsets, and classes."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]


def result_table(experiment: Experiment) -> Table:
    """Results of every stage's last and best (oracle) snapshot, with the paper's rows, else differences.

    The paper's numbers are of the best snapshot, selected on the labels that it is scored on. So the difference uses
    the oracle snapshot if all snapshots were scored. Without rows of the paper, it is to the first stage.
    """
    protocol = experiment.protocol
    published = paper_rows(protocol) if protocol is not None else {}
    stages = experiment.trained
    first = columns(stages[0].last)  # type: ignore[arg-type]
    header = [key for key in ("mIoU", "mIoU13", *experiment.classes) if key in first]
    rows: list[Row] = []

    def row(label: str, kind: str, values: dict[str, float | None]) -> dict[str, float | None]:
        rows.append(Row(label, kind, tuple(values.get(key) for key in header)))
        return values

    for stage in stages:
        last = ours = row(f"{stage.label}, last", OURS, columns(stage.last))  # type: ignore[arg-type]
        if stage.oracle is not None:
            ours = row(f"{stage.label}, best (oracle)", OURS, columns(stage.oracle))
        if stage is not stages[0] and not published:
            row(f"last, against {stages[0].label}", DIFFERENCE, _minus(last, first))
        theirs = published.get(ROWS.get(stage.name, ""))
        if theirs is not None:
            row(f"paper: {ROWS[stage.name]} (oracle)", PAPER, theirs)
            row(f"ours against the paper's {ROWS[stage.name]}", DIFFERENCE, _minus(ours, theirs))
    for name, values in published.items():
        if name not in ROWS.values():
            row(f"paper: {name}", PAPER, values)
    return Table(tuple(header), tuple(rows))


def _minus(ours: dict[str, float | None], theirs: dict[str, float | None]) -> dict[str, float | None]:
    pairs = {key: (value, theirs.get(key)) for key, value in ours.items()}
    return {key: None if a is None or b is None else a - b for key, (a, b) in pairs.items()}


def shown(value: float | None, kind: str = OURS) -> str:
    """A cell's text: one decimal; differences have a sign, since colour alone is not accessible."""
    if value is None:
        return "–"
    text = f"{value:+.1f}" if kind == DIFFERENCE else f"{value:.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def difference_class(value: float | None) -> str:
    """CSS class of a difference: better, worse or even."""
    text = shown(value, DIFFERENCE)
    return {"+": "better", "−": "worse"}.get(text[0], "even")


def latex(tables: Sequence[tuple[str, Table]]) -> str:
    """A LaTeX table of every experiment's rows, one decimal; with several, its name after a rule."""
    header = tables[0][1].header
    rows: list[list[str]] = []
    for name, table in tables:
        if len(tables) > 1:
            rows += [*([RULE] if rows else []), [name, *[""] * len(header)]]
        for row in table.rows:
            values = dict(zip(table.header, row.values, strict=True))
            rows.append([row.label, *[shown(values.get(key), row.kind) for key in header]])
    return latex_table(["", *header], rows)
