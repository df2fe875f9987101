"""Fills the marked blocks of a Markdown page with benchmark tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from advent.errors import ConfigError
from advent.utils.serialization import write_text
from benchmarking.definition import Benchmark, TableSpec
from benchmarking.depth_tables import depth_scores_table, depth_table
from benchmarking.tables import (
    costs_table,
    differences_table,
    hours_table,
    labels_table,
    rankings_table,
    repeated_table,
    results_table,
    scores_table,
    soon_table,
    statistics_table,
)

MARK = re.compile(r"(<!-- (\w+): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
BLOCKS: dict[str, Callable[[Benchmark, TableSpec], str]] = {
    "results": results_table,
    "depth": depth_table,
    "depth_scores": depth_scores_table,
    "statistics": statistics_table,
    "soon": soon_table,
    "costs": costs_table,
    "scores": scores_table,
    "differences": differences_table,
    "rankings": rankings_table,
    "repeated": repeated_table,
    "labels": labels_table,
    "hours": hours_table,
}


def fill_page(benchmarks: Sequence[Benchmark], page: Path) -> Path:
    """Update the text between `<!-- BLOCK: TABLE -->` and `<!-- end -->`, of the tables of one or several benchmarks.

    The table `all` is that of all cells of the first benchmark, `all_TARGET` that of the benchmark with this target.
    Raises ConfigError on an unknown marker, and on two tables of one name.
    """
    tables = {"all": (benchmarks[0], TableSpec(name="all"))}
    for benchmark in benchmarks:
        own = [*benchmark.tables, *([TableSpec(name=f"all_{benchmark.target}")] if benchmark.target else [])]
        for table in own:
            if table.name in tables:
                raise ConfigError(f"{benchmark.name}: a table {table.name} is defined twice; rename one of them")
            tables[table.name] = (benchmark, table)

    def renewed(match: re.Match[str]) -> str:
        opening, block, name, closing = match.groups()
        if block not in BLOCKS or name not in tables:
            raise ConfigError(f"{page}: {opening.strip()}: expected one of {', '.join(BLOCKS)}, and a table's name")
        return f"{opening}{BLOCKS[block](*tables[name])}\n{closing}"

    text = page.read_text(encoding="utf-8")
    if not MARK.search(text):
        raise ConfigError(f"{page}: contains no marker such as <!-- scores: main --> ... <!-- end -->")
    write_text(page, MARK.sub(renewed, text))
    return page
