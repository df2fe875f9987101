"""Definition of a benchmark: cells (a method's stage), seeds, tables, and what is read from the results files.

A YAML file defines the benchmark (configs/benchmarks/camvid_modern.yml). A cell is a stage's config with overrides; it
names the cells that it starts from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from advent.config.files import TRAINERS
from advent.config.loading import default_config, flat, load_config, plain, without_effect
from advent.config.schema import Config
from advent.errors import hint
from advent.utils.paths import CONFIGS, find_yaml
from advent.utils.serialization import read_json, read_yaml
from advent.utils.validation import Many, YamlModel, validated
from ida.pipeline.stage import SCRIPTS, Stage

# Keys that locate data and outputs, without effect on results.
ELSEWHERE = (*without_effect(), "DATA_DIRECTORY_SOURCE", "DATA_DIRECTORY_TARGET", "GEOMETRY_TARGET", "CLASSES.")
Result = dict[str, Any]  # content of a results file
DEVELOPMENT = "development"  # the score for choices; curves are measured with it


class Run(YamlModel):
    """One stage of one method. `after` and `ranking` name the cells that it starts from.

    `source: target` trains on the target's labelled images, of another list if `set` has DATA_LIST_SOURCE: an upper
    bound. `scores`: scores of this cell alone, as those of the benchmark.
    """

    name: str
    label: str
    script: str
    cfg: str
    after: str | None = None
    ranking: str | None = None
    source: Literal["target"] | None = None
    set: Many[str] = ()
    scores: dict[str, dict[str, str]] = Field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether the cell writes snapshots that can be scored."""
        return self.script in TRAINERS


class TableSpec(YamlModel):
    """Table of the page: its rows (cells), and pairs of cells (a, b) whose difference a - b is reported per seed.

    `classes`: classes with a column of their own, in tables that do not show all.
    """

    name: str
    rows: Many[str] = ()
    differences: Many[Annotated[tuple[str, str], Strict(False)]] = ()
    classes: Many[str] = ()


class Roles(YamlModel):
    """Cells with a role in docs/data/summary.json."""

    source_only: str
    upper_bound: str
    best_chain: str


class DepthPart(YamlModel):
    """A use of depth: the cell that has it, and its controls (name -> cell), which have everything but the depth.

    `pool_with`: BENCHMARK:PART, the same use of depth on another target.
    """

    label: str
    cell: str
    controls: Annotated[dict[str, str], Field(min_length=1)]
    pool_with: Annotated[str, Field(pattern=r"^[^:]+:[^:]+$")] | None = None


class Curve(YamlModel):
    """A chain whose development score is measured over its work: `last` is its last cell."""

    label: str
    last: str


class Benchmark(YamlModel):
    """Benchmark definition: all cells in dependency order, seeds, tables.

    `scores`: further scores of each cell's last checkpoint, by name: config keys of the evaluation. `development` is
    the one for choices. `target`: the benchmark's key in docs/data/summary.json, with the `roles` of its cells and its
    `depth` parts; without it the benchmark is not part of the summary. `curves`: chains whose snapshots are all scored.
    `depth_scores`: whether predicted depth is scored, too, which needs a target with disparity and cameras.
    `repeated`: folder of results of cells that ran again on another processor (`--results` wrote them).
    """

    name: str
    results: Annotated[Path, Strict(False)]
    repeated: Annotated[Path, Strict(False)] | None = None
    seeds: Annotated[Many[int], Field(min_length=1)]
    scores: dict[str, dict[str, str]] = Field(default_factory=dict)
    depth_scores: bool = False
    target: str | None = None
    roles: Roles | None = None
    depth: dict[str, DepthPart] = Field(default_factory=dict)
    curves: dict[str, Curve] = Field(default_factory=dict)
    cells: Annotated[Many[Run], Field(min_length=1)]
    tables: Annotated[Many[TableSpec], Field(min_length=1)]

    @model_validator(mode="after")
    def _known_cells(self) -> Benchmark:
        before: list[str] = []
        for run in self.cells:
            if run.script not in SCRIPTS:
                raise ValueError(f"cell {run.name}: {run.script} is not a stage script; use {', '.join(SCRIPTS)}")
            if run.name in before:
                raise ValueError(f"cell {run.name}: is defined twice")
            for role, name in (("after", run.after), ("ranking", run.ranking)):
                if name is not None and name not in before:
                    raise ValueError(f"cell {run.name}: {role}: no cell {name!r} before it")
            before.append(run.name)
        if (self.target is None) != (self.roles is None):
            raise ValueError("target and roles belong together: set both or none")
        if self.curves and DEVELOPMENT not in self.scores:
            raise ValueError(f"curves need a score named {DEVELOPMENT} under scores")
        for where, name in self._references():
            if name not in before:
                raise ValueError(f"{where}: there is no cell {name!r}; {hint(name, before)}")
        return self

    def _references(self) -> Iterator[tuple[str, str]]:
        """(place, cell name) wherever a cell is named outside the cells."""
        for table in self.tables:
            for name in (*table.rows, *(name for pair in table.differences for name in pair)):
                yield f"table {table.name}", name
        if self.roles is not None:
            for role, name in self.roles.model_dump().items():
                yield f"roles: {role}", name
        for part, depth in self.depth.items():
            for name in (depth.cell, *depth.controls.values()):
                yield f"depth: {part}", name
        for key, curve in self.curves.items():
            yield f"curves: {key}", curve.last

    @cached_property
    def by_name(self) -> dict[str, Run]:
        """Cells by name."""
        return {run.name: run for run in self.cells}

    def file(self, run: Run, seed: int) -> Path:
        """A cell's results file."""
        return self.results / f"seed{seed}" / f"{run.name}.json"

    def results_of(self, name: str, seeds: Sequence[int] | None = None) -> dict[int, Result]:
        """The available results of a cell, by seed. `seeds`: only these; by default all that exist."""
        if seeds is None:
            folders = (folder.name.removeprefix("seed") for folder in self.results.glob("seed*"))
            seeds = sorted(int(number) for number in folders if number.isdecimal())
        files = {seed: self.file(self.by_name[name], seed) for seed in seeds}
        return {seed: read_json(file) for seed, file in files.items() if file.is_file()}

    def with_repeated(self) -> list[Benchmark]:
        """The benchmark with its results and, if it has such a folder, with those in `repeated`."""
        folders = (self.results, *([] if self.repeated is None else [self.repeated]))
        return [self.model_copy(update={"results": folder}) for folder in folders]

    def pairs(self, a: str, b: str, seeds: Sequence[int] | None = None) -> dict[int, list[tuple[Result, Result]]]:
        """The pairs of results of two cells by seed, for the seeds with both.

        Processors round differently, so all pairs of one processor, first and repeated runs, are taken. Without any
        it is the pair of the first runs.
        """
        left, right = ([part.results_of(name, seeds) for part in self.with_repeated()] for name in (a, b))
        pairs = {}
        for seed in left[0]:
            if seed in right[0]:
                both = [(own[seed], other[seed]) for own in left for other in right if seed in own and seed in other]
                pairs[seed] = [pair for pair in both if on_one_processor(*pair)] or both[:1]
        return pairs

    def chain(self, run: Run) -> list[Run]:
        """The cells that a cell depends on, in order, each once."""
        required: dict[str, Run] = {}
        for name in (run.after, run.ranking):
            if name:
                before = self.by_name[name]
                required |= {other.name: other for other in (*self.chain(before), before)}
        return list(required.values())

    def on_curve(self, run: Run) -> bool:
        """Whether all snapshots of the cell are scored, because a curve passes through it."""
        ends = [self.by_name[curve.last] for curve in self.curves.values()]
        return run.trains and any(run in (*self.chain(end), end) for end in ends)


def on_one_processor(a: Result, b: Result) -> bool:
    """Whether two results were measured on the same kind of processor."""
    return a.get("processor") == b.get("processor")


def load_benchmark(path_or_name: str | Path) -> Benchmark:
    """Load a benchmark from a YAML file; its name is the file's. Raises ConfigError naming file and key."""
    path = find_yaml(path_or_name, "benchmarks")
    content = read_yaml(path)
    named = {"name": path.stem, **content} if isinstance(content, dict) else content
    return validated(Benchmark, named, path, "configs/benchmarks/camvid_modern.yml")


def benchmarks_with_targets() -> list[Benchmark]:
    """The shipped benchmarks that docs/data/summary.json is made of, by name."""
    files = sorted((CONFIGS / "benchmarks").glob("*.yml"))
    return [benchmark for benchmark in map(load_benchmark, files) if benchmark.target is not None]


def cell_stage(run: Run, seed: int, overrides: Sequence[str] = ()) -> Stage:
    """The cell's stage with one seed; its experiment folder is the config's EXP_NAME with the seed as suffix."""
    own = [f"STAGE.NAME={run.name}", f"TRAIN.RANDOM_SEED={seed}", f"EXP_SUFFIX=seed{seed}"]
    own += [f"STAGE.AFTER={run.after}"] if run.after else []
    own += [f"STAGE.RANKING={run.ranking}"] if run.ranking else []
    given = [*own, *run.set, *overrides]
    config = load_config(run.cfg, given)
    if run.source == "target":
        config.SOURCE, config.TRAIN.SET_SOURCE = config.TARGET, config.TRAIN.SET_TARGET
        config.DATA_DIRECTORY_SOURCE = config.DATA_DIRECTORY_TARGET
        if not any(pair.startswith("DATA_LIST_SOURCE=") for pair in given):
            config.DATA_LIST_SOURCE = config.DATA_LIST_TARGET
    return Stage(run.name, run.script, config)


def settings(config: Config) -> dict[str, Any]:
    """Settings that a cell's result depends on: non-default config keys, without paths and evaluation options."""
    defaults = dict(flat(default_config()))
    sections = tuple(key for key in ELSEWHERE if key.endswith("."))
    return {
        key: value
        for key, value in flat(plain(config))
        if value != defaults.get(key) and key not in ELSEWHERE and not key.startswith(sections)
    }
