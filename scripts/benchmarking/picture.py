"""Picture of a benchmark: what the best chain's stages and the upper bound predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advent.errors import ConfigError
from benchmarking.definition import Benchmark, cell_stage
from ida.pipeline.lineage import check_finished
from ida.pipeline.qualitative import qualitative_figure


def picture(benchmark: Benchmark, seed: int, overrides: Sequence[str], out: Path) -> Path:
    """Image, truth, predictions of the best chain's training cells, depth and map; then those of the upper bound.

    Raises ConfigError for a benchmark without roles, and for a cell whose weights are missing.
    """
    if benchmark.roles is None:
        raise ConfigError(f"--picture: {benchmark.name} has no roles, so it names no best chain; add target and roles")
    best = benchmark.by_name[benchmark.roles.best_chain]
    cells = [*benchmark.chain(best), best, benchmark.by_name[benchmark.roles.upper_bound]]
    stages = [cell_stage(run, seed, overrides) for run in cells if run.trains]
    for stage in stages:
        if not check_finished(stage):
            raise ConfigError(f"--picture: the weights of {stage.name}, seed {seed}, are missing; run this cell first")
    return qualitative_figure(stages, out)
