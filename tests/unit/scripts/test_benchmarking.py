"""Benchmark: description file, statistics, generated page, and agreement of committed results with that page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advent.errors import ConfigError
from advent.utils.serialization import read_json, write_json
from advent.utils.tables import mean_std
from benchmarking.page import BLOCKS, MARK, differences, differences_table, fill_page, hours_table, scores_table
from benchmarking.runs import Benchmark, cell_stage, load_benchmark, settings
from ida.pipeline.label_quality import spearman

ROOT = Path(__file__).parents[3]
PLAIN: dict[str, Any] = {
    "results": "results",
    "seeds": [1, 2],
    "cells": [
        {"name": "a", "label": "method a", "script": "train.py", "cfg": "quick:daf"},
        {"name": "b", "label": "method b", "script": "train_isl.py", "cfg": "quick:isl", "after": "a"},
    ],
    "tables": [{"name": "main", "rows": ["a", "b"], "differences": [["b", "a"]]}],
}


def written(folder: Path, content: Any) -> Path:
    path = folder / "own.yml"
    path.write_text(json.dumps(content))  # JSON is valid YAML
    return path


@pytest.fixture
def own(tmp_path: Path) -> Benchmark:
    benchmark = load_benchmark(written(tmp_path, PLAIN)).model_copy(update={"results": tmp_path / "results"})
    for cell, seed, miou in (("a", 1, 40.0), ("a", 2, 42.0), ("b", 2, 45.0)):
        scores = {"iteration": 9, "miou": miou, "pixel_accuracy": 80.0, "iou": {"flat": miou, "sky": None}}
        record = {"seconds": 60.0, "core_seconds": 90.0, "last": scores, "oracle": {**scores, "miou": miou + 1}}
        write_json(benchmark.file(benchmark.by_name[cell], seed), record)
    return benchmark


def test_mean_and_standard_deviation() -> None:
    assert mean_std([1.0, 2.0, 3.0]) == "2.0 ± 1.0"
    assert mean_std([1.5]) == "1.5"
    assert mean_std([]) == "-"
    assert mean_std([-1.0, 3.0], sign=True) == "+1.0 ± 2.8"


def test_tables_of_available_results(own: Benchmark) -> None:
    (table,) = own.tables
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in scores_table(own, table).splitlines()]
    assert lines[2] == ["method a", "2", "41.0 ± 1.4", "42.0 ± 1.4", "41.0", "-"]
    assert lines[3] == ["method b", "1", "45.0", "46.0", "45.0", "-"]
    assert differences(own, "b", "a") == {2: 3.0}  # only the seed that both runs have
    cells = [cell.strip() for cell in differences_table(own, table).splitlines()[2].split("|")[1:-1]]
    assert cells == ["method b - method a", "-", "+3.0", "+3.0"]


def test_wall_clock_and_cpu_minutes(own: Benchmark) -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in hours_table(own, own.tables[0]).splitlines()]
    assert lines[2] == ["method a", "2", "1.0 ± 0.0", "1.5 ± 0.0"]
    assert hours_table(own, own.tables[0]).endswith("Total: 0.1 hours, 0.1 core hours.")


def test_page_is_updated_between_its_marks(own: Benchmark, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- differences: main -->\nold\n<!-- end -->\nafter\n")
    fill_page(own, page)
    once = page.read_text()
    assert once.startswith("before\n")
    assert once.endswith("<!-- end -->\nafter\n")
    assert "old" not in once
    fill_page(own, page)
    assert page.read_text() == once
    page.write_text("<!-- scores: other -->\n<!-- end -->")
    with pytest.raises(ConfigError, match="table's name"):
        fill_page(own, page)
    page.write_text("nothing")
    with pytest.raises(ConfigError, match="contains no marker"):
        fill_page(own, page)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tables": []}, "tables: .* has too few values; at least 1"),
        ({"cell": []}, "unknown key 'cell'; did you mean cells"),
        ({"seeds": ["one"]}, r"seeds.0.: 'one' should be a valid integer"),
        ({"cells": [{"name": "a", "label": "", "script": "train.py"}]}, r"cells.0.: the key 'cfg' is missing"),
        ({"cells": [PLAIN["cells"][1]]}, "after: no cell 'a' before it"),
        ({"cells": [PLAIN["cells"][0], PLAIN["cells"][0]]}, "is defined twice"),
        ({"cells": [{**PLAIN["cells"][0], "script": "test.py"}]}, "test.py is not a stage script"),
        ({"cells": [{**PLAIN["cells"][0], "source": "elsewhere"}]}, "source: 'elsewhere' is none of target"),
        ({"tables": [{"name": "main", "rows": ["c"]}]}, "there is no cell 'c'"),
        ({"tables": [{"rows": ["a"]}]}, r"tables.0.: the key 'name' is missing"),
        ({"tables": [{"name": "main", "rows": "a"}]}, r"tables.0..rows: 'a' should be a valid list"),
        ({"target": "camvid"}, "target and roles belong together"),
        (
            {"target": "camvid", "roles": {"source_only": "a", "upper_bound": "b", "best_chain": "c"}},
            "roles: best_chain: there is no cell 'c'",
        ),
        ({"depth": {"d": {"label": "", "cell": "a", "controls": {"off": "c"}}}}, "depth: d: there is no cell 'c'"),
        ({"depth": {"d": {"label": "", "cell": "a", "controls": {}}}}, "controls: .* has too few values"),
        ({"curves": {"x": {"label": "", "last": "a"}}}, "curves need a score named development"),
        (
            {"tables": [{"name": "main", "differences": [["a", "b", "a"]]}]},
            r"tables.0..differences.0.: .* has too many values; at most 2",
        ),
    ],
)
def test_a_wrong_description_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_benchmark(written(tmp_path, {**PLAIN, **change}))


def test_settings_exclude_paths_and_test_keys() -> None:
    run = load_benchmark("camvid7").by_name["daf"]
    recorded = settings(cell_stage(run, 1, ["DATA_ROOT=/here", "DATA_DIRECTORY_TARGET=x", "DEVICE=cpu"]).config)
    assert recorded == settings(cell_stage(run, 1).config)
    assert recorded["TRAIN.RANDOM_SEED"] == 1
    assert recorded["MODEL.ENCODER"] == "timm:tf_efficientnet_lite0"
    assert not [key for key in recorded if key.startswith(("TEST.", "EXP_", "DATA_DIRECTORY", "CLASSES."))]


def test_spearman() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=50)
    assert spearman(values, np.exp(values)) == pytest.approx(1)
    assert spearman(values, -values) == pytest.approx(-1)
    assert spearman([1, 2, 3], [5, 5, 5]) is None
    # Ties get their mean rank: ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


@pytest.mark.parametrize("name", sorted(file.stem for file in (ROOT / "configs/benchmarks").glob("*.yml")))
def test_every_cell_of_a_shipped_benchmark_has_a_config(name: str) -> None:
    benchmark = load_benchmark(name)
    assert benchmark.name == name
    for run in benchmark.cells:
        cell_stage(run, 1)


def test_committed_results_match_the_present_configs_and_fill_the_committed_page(tmp_path: Path) -> None:
    benchmark = load_benchmark("camvid7")
    benchmark = benchmark.model_copy(update={"results": ROOT / benchmark.results})
    files = sorted(benchmark.results.rglob("*.json"))
    if not files:
        pytest.skip("no benchmark results committed yet; those of the pilot (docs/archive) are of other configs")
    for file in files:
        record = read_json(file)
        run = benchmark.by_name[record["cell"]]
        assert file == benchmark.file(run, record["seed"])
        assert record["settings"] == settings(cell_stage(run, record["seed"]).config), file
    page = tmp_path / "results.md"
    page.write_bytes((ROOT / "docs/results.md").read_bytes())
    assert {match[1] for match in MARK.findall(page.read_text())} <= set(BLOCKS)
    fill_page(benchmark, page)
    assert page.read_text() == (ROOT / "docs/results.md").read_text()
