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
from benchmarking.cost import write_costs
from benchmarking.curves import FILE as CURVES
from benchmarking.curves import passing_work, time_to_accuracy
from benchmarking.definition import Benchmark, DepthPart, benchmarks_with_targets, cell_stage, load_benchmark, settings
from benchmarking.depth_tables import depth_table
from benchmarking.intervals import Interval, conclude, conclusions, paired_interval, t_quantile
from benchmarking.page import BLOCKS, MARK, fill_page
from benchmarking.summary import FILE as SUMMARY
from benchmarking.summary import both_targets, part_intervals, pooled_miou, summary
from benchmarking.tables import differences_table, hours_table, repeated_table, scores_table
from helpers import tiny_data
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

PART_THERE = {"label": "a head", "cell": "a", "controls": {"none": "b"}}


def written(folder: Path, content: Any) -> Path:
    path = folder / "own.yml"
    path.write_text(json.dumps(content))  # JSON is valid YAML
    return path


def cells(table: str) -> list[list[str]]:
    """The cells of every line of a Markdown table; the second line is the rule."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


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
    assert mean_std([-0.04], sign=True) == "+0.0"  # never "-0.0"


def test_tables_of_available_results(own: Benchmark) -> None:
    (table,) = own.tables
    lines = cells(scores_table(own, table))
    assert lines[2] == ["method a", "2", "41.0 ± 1.4", "42.0 ± 1.4", "41.0", "-"]
    assert lines[3] == ["method b", "1", "45.0", "46.0", "45.0", "-"]
    assert list(own.pairs("b", "a")) == [2]  # only the seed that both runs have
    assert cells(differences_table(own, table))[2] == ["method b - method a", "-", "+3.0", "+3.0"]


def test_wall_clock_and_cpu_minutes(own: Benchmark) -> None:
    lines = cells(hours_table(own, own.tables[0]))
    assert lines[2] == ["method a", "2", "1.0 ± 0.0", "1.5 ± 0.0"]
    assert hours_table(own, own.tables[0]).endswith("Total: 0.1 hours, 0.1 core hours.")


def test_page_is_updated_between_its_marks(own: Benchmark, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- differences: main -->\nold\n<!-- end -->\nafter\n")
    fill_page([own], page)
    once = page.read_text()
    assert once.startswith("before\n")
    assert once.endswith("<!-- end -->\nafter\n")
    assert "old" not in once
    fill_page([own], page)
    assert page.read_text() == once
    page.write_text("<!-- scores: other -->\n<!-- end -->")
    with pytest.raises(ConfigError, match="table's name"):
        fill_page([own], page)
    page.write_text("nothing")
    with pytest.raises(ConfigError, match="contains no marker"):
        fill_page([own], page)


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


def test_a_bound_trains_on_the_targets_labels_of_its_own_list() -> None:
    benchmark = load_benchmark("camvid_modern")
    lists = {}
    for name in ("upper", "upper_other_drives"):
        config = cell_stage(benchmark.by_name[name], 1).config
        assert (config.SOURCE, config.DATA_DIRECTORY_SOURCE) == (config.TARGET, config.DATA_DIRECTORY_TARGET)
        lists[name] = [Path(path).name for path in (config.DATA_LIST_SOURCE, config.DATA_LIST_TARGET)]
    assert lists == {
        "upper": ["camvid_target.txt", "camvid_target.txt"],
        "upper_other_drives": ["camvid_other_drives.txt", "camvid_target.txt"],
    }
    names, others = ((ROOT / "configs/lists" / name).read_text().split() for name in lists["upper_other_drives"][::-1])
    assert others == [name for name in names if not name.startswith("0016E5")]  # the drive of val


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


CHAIN: dict[str, Any] = {
    "results": "results",
    "seeds": [1, 2],
    "scores": {"development": {"TEST.SET_TARGET": "train"}},
    "target": "camvid",
    "roles": {"source_only": "source", "upper_bound": "upper", "best_chain": "ida"},
    "depth": {"head": {"label": "head", "cell": "ida", "controls": {"none": "control", "not run": "late"}}},
    "curves": {"modern": {"label": "quick", "last": "source"}, "faithful": {"label": "chain", "last": "ida"}},
    "cells": [
        {"name": "source", "label": "source only", "script": "train.py", "cfg": "quick:source_only"},
        {"name": "daf", "label": "DAF", "script": "train.py", "cfg": "quick:daf"},
        {"name": "isl", "label": "ISL", "script": "train_isl.py", "cfg": "quick:isl", "after": "daf"},
        {"name": "rank", "label": "ranking", "script": "entropy.py", "cfg": "quick:rank", "after": "isl"},
        {
            **{"name": "ida", "label": "IDA", "script": "train_intra.py", "cfg": "quick:ida"},
            **{"after": "isl", "ranking": "rank"},
        },
        {"name": "upper", "label": "labels", "script": "train.py", "cfg": "quick:source_only", "source": "target"},
        {"name": "control", "label": "control", "script": "train.py", "cfg": "quick:daf"},
        {"name": "late", "label": "never run", "script": "train.py", "cfg": "quick:daf"},
    ],
    "tables": [{"name": "main", "rows": ["source", "ida", "upper", "late"], "classes": ["sky"]}],
}


DEPTH = {"abs rel": 0.25, "sq rel": 1.0, "RMSE": 4.0, "RMSE log": 0.3, "d < 1.25": 0.6}


@pytest.fixture
def chain(tmp_path: Path) -> Benchmark:
    """360 iterations of source and of DAF, 101 of ISL, 100 of IDA; two seeds, of which the second lacks DAF and ISL."""
    benchmark = load_benchmark(written(tmp_path, CHAIN)).model_copy(update={"results": tmp_path / "results"})
    write_json(
        benchmark.results / "cost.json",
        {"steps": {"source": 1.0, "daf": 2.5, "isl": 1.0, "ida": 3.0, "upper": 1.0}}
        | {"processor": "a processor", "torch": "2.14", "date": "2026-11-29"},
    )
    scores = {
        "source": {1: 50.0, 2: 52.0},
        "daf": {1: 55.0},
        "isl": {1: 58.0},
        "ida": {1: 61.0, 2: 60.0},
        "upper": {1: 70.0, 2: 72.0},
        "control": {1: 60.0, 2: 57.0},
    }
    curves = {
        "source": [[100, 40.0], [360, 45.0]],
        "daf": [[120, 30.0], [360, 35.0]],
        "isl": [[101, 38.0]],
        "ida": [[50, 39.0], [100, 39.5]],
    }
    for cell, by_seed in scores.items():
        for seed, miou in by_seed.items():
            record = {
                "seconds": 60.0,
                "core_seconds": {"daf": 100.0, "isl": 50.0}.get(cell, 25.5),
                "processor": "a processor",
                "last": {"iteration": 9, "miou": miou, "iou": {"flat": miou + 0.004, "sky": None}},
                "development": {"miou": miou - (7 if (cell, seed) == ("control", 1) else 5)},
                **({"curve": curves[cell]} if cell in curves else {}),
                **({"depth": DEPTH} if cell == "ida" else {}),
            }
            write_json(benchmark.file(benchmark.by_name[cell], seed), record)
    write_json(benchmark.file(benchmark.by_name["rank"], 1), {"seconds": 1.0, "core_seconds": 7.0, "ranking": None})
    return benchmark


def entry(miou: float, gap: float, work: float | None, core_seconds: float | None = 25.5) -> dict[str, Any]:
    return {
        **{"miou": miou, "dev": miou - 5, "iou": {"flat": miou, "sky": None}, "gap_closed": gap, "work": work},
        **{"core_seconds": core_seconds, "processor": "a processor"},
    }


def test_summary_of_a_worked_example(chain: Benchmark) -> None:
    made = summary([chain])
    assert made["targets"] == {
        "camvid": {
            **{"source_only": "source", "upper_bound": "upper", "best_chain": "ida"},
            "rows": {
                "source": {"label": "source only", "seeds": {"1": entry(50, 0, 360), "2": entry(52, 0, 360)}},
                "daf": {"label": "DAF", "seeds": {"1": entry(55, 0.25, 900, 100)}},  # 360 x 2.5
                "isl": {"label": "ISL", "seeds": {"1": entry(58, 0.4, 1001, 150)}},
                "ida": {
                    "label": "IDA",
                    "seeds": {"1": entry(61, 0.55, 1301, 175.5), "2": entry(60, 0.4, 1301, None)},
                },
                "upper": {"label": "labels", "seeds": {"1": entry(70, 1, 360), "2": entry(72, 1, 360)}},
                "control": {
                    "label": "control",
                    "seeds": {"1": {**entry(60, 0.5, None), "dev": 53}, "2": entry(57, 0.25, None)},
                },
            },
        }
    }
    # Differences 1 and 3: s / sqrt(2) is 1, and t(0.975, 1) is 12.706. The control that never ran is absent.
    control = {"mean": 2.0, "low": pytest.approx(-10.706, abs=1e-3), "high": pytest.approx(14.706, abs=1e-3), "n": 2}
    # Means of val and dev: 2 and 3, so s / sqrt(2) is 0.5.
    pooled = {"mean": 2.5, "low": pytest.approx(-3.853, abs=1e-3), "high": pytest.approx(8.853, abs=1e-3), "n": 2}
    part = {
        **{"controls": {"none": control}, "conclusion": "cannot tell", "both_targets": {}},
        **{"pooled": {"none": pooled}, "pooled_conclusion": "cannot tell"},
    }
    assert made["depth"] == {"head": part}
    with pytest.raises(ConfigError, match="camvid is defined by another benchmark, too"):
        summary([chain, chain])


def test_differences_between_processors_are_marked(own: Benchmark) -> None:
    plain = differences_table(own, own.tables[0])
    assert "†" not in plain
    file = own.file(own.by_name["b"], 2)
    write_json(file, {**read_json(file), "processor": "another one"})
    marked = differences_table(own, own.tables[0])
    assert " +3.0† |" in marked
    assert marked.endswith("† The two runs had different processors.")


def test_pairs_are_of_one_processor_where_a_cell_ran_again(own: Benchmark, tmp_path: Path) -> None:
    """b ran elsewhere than a: 45 - 42 crosses processors. a ran again there and has 44, so the difference is 1."""
    ran = {"miou": 44.0, "iou": {"flat": 44.0, "sky": None}}
    for cell in ("a", "b"):
        file = own.file(own.by_name[cell], 2)
        write_json(file, {**read_json(file), "processor": f"the one of {cell}", "development": {"miou": 40.0}})
    part = DepthPart(label="head", cell="b", controls={"none": "a"})
    own = own.model_copy(update={"repeated": tmp_path / "again", "depth": {"head": part}})
    assert cells(depth_table(own, own.tables[0]))[2][3] == "+3.0†"
    assert "+3.0†" in differences_table(own, own.tables[0])  # nothing is repeated yet
    assert repeated_table(own, own.tables[0]) == "*Not yet run.*"
    again = {"last": ran, "processor": "the one of b", "development": {"miou": 41.0}, "seconds": 60, "core_seconds": 60}
    write_json(tmp_path / "again" / "seed2" / "a.json", again)
    table = differences_table(own, own.tables[0])
    assert "†" not in table
    assert " +1.0 |" in table
    assert "†" not in depth_table(own, own.tables[0])
    assert part_intervals(own, part)["none"].mean == 1
    assert part_intervals(own, part, pooled_miou)["none"].mean == (45 + 40) / 2 - (44 + 41) / 2
    file = own.file(own.by_name["b"], 2)
    both = {**read_json(file), "processor": "the one of a"}
    write_json(tmp_path / "again" / "seed2" / "b.json", {**both, "last": {**both["last"], "miou": 44.0}})
    assert part_intervals(own, part)["none"] == Interval(1.5, None, None, 1)  # the mean of 45 - 44 and 44 - 42
    assert cells(hours_table(own, own.tables[0]))[2][1] == "3"  # the repeated run counts
    assert cells(repeated_table(own, own.tables[0]))[2:] == [
        ["method a", "42.0", "44.0", "42.0", "44.0", "40.0", "41.0", "2.0"],
        ["method b", "45.0", "44.0", "45.0", "44.0", "40.0", "40.0", "1.0"],
    ]


def test_conclusions_of_several_measures_are_named_only_where_they_differ() -> None:
    wide, narrow = {"none": Interval(0.5, -1, 2, 3)}, {"none": Interval(0.2, -0.4, 0.8, 3)}
    assert conclusions({"val": wide, "both": {}}, ["none"]) == "cannot tell"
    assert conclusions({"val": wide, "val and dev": narrow}, ["none"]) == "val: cannot tell; val and dev: does not"
    assert conclusions({"val": narrow, "val and dev": narrow}, ["none"]) == "does not"


def test_a_part_pooled_with_the_same_part_on_another_target(chain: Benchmark, tmp_path: Path) -> None:
    """Differences 1 and 3 here, and 5 there: mean 3, s = 2, n = 3. The other control is not there."""
    there = {**PLAIN, "results": str(tmp_path / "there"), "depth": {"head": PART_THERE}}
    other = load_benchmark(written(tmp_path, there))
    for cell, miou in (("a", 45.0), ("b", 40.0)):
        write_json(other.file(other.by_name[cell], 1), {"last": {"miou": miou}})
    head = chain.depth["head"].model_copy(update={"pool_with": f"{tmp_path / 'own.yml'}:head"})
    both = both_targets(chain, head)
    half = 4.3027 * 2 / 3**0.5
    assert both == {
        "none": Interval(3.0, pytest.approx(3 - half, abs=1e-3), pytest.approx(3 + half, abs=1e-3), 3),
    }
    pooled = chain.model_copy(update={"depth": {"head": head}})
    assert "+3.0 (-2.0 to +8.0)" in depth_table(pooled, chain.tables[0])
    assert summary([pooled])["depth"]["head"]["both_targets"]["none"]["n"] == 3
    wrong = head.model_copy(update={"pool_with": f"{tmp_path / 'own.yml'}:haed"})
    with pytest.raises(ConfigError, match="has no depth part 'haed'; did you mean head"):
        both_targets(chain, wrong)


def test_without_results_the_summary_is_empty(chain: Benchmark, tmp_path: Path) -> None:
    empty = chain.model_copy(update={"results": tmp_path / "none"})
    assert summary([empty]) == {"targets": {}, "depth": {}}


def test_student_quantiles() -> None:
    """Table of Student's distribution, 95 % two-sided."""
    known = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980}
    assert {freedom: round(t_quantile(freedom), 3) for freedom in known} == known
    assert t_quantile(4, 0.99) == pytest.approx(4.604, abs=5e-4)


def test_interval_of_paired_differences() -> None:
    # Mean 2, s = 1, n = 3: 4.3027 / sqrt(3) = 2.4842.
    interval = paired_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.n) == (2.0, 3)
    assert (interval.low, interval.high) == (pytest.approx(-0.4842, abs=1e-4), pytest.approx(4.4842, abs=1e-4))
    assert interval.half_width == pytest.approx(2.4842, abs=1e-4)
    assert str(interval) == "+2.0 (-0.5 to +4.5)"
    single = paired_interval([1.5])
    assert single == Interval(1.5, None, None, 1)
    assert (single.half_width, str(single)) == (None, "+1.5")


@pytest.mark.parametrize(
    ("controls", "expected"),
    [
        ([(2.0, 0.1, 3.9), (3.0, 0.5, 5.5)], "helps"),
        ([(0.5, 0.1, 0.9)], "helps"),  # small, but there
        ([(2.0, -0.1, 4.1), (3.0, 0.5, 5.5)], "cannot tell"),
        ([(0.1, -0.7, 0.9), (3.0, 0.5, 5.5)], "does not"),  # the strongest control decides
        ([(-0.1, -1.3, 1.0)], "cannot tell"),
        ([(2.0, None, None)], "cannot tell"),
    ],
)
def test_conclusion(controls: list[tuple[float, float | None, float | None]], expected: str) -> None:
    intervals = {str(index): Interval(*ends, 3) for index, ends in enumerate(controls)}
    assert conclude(intervals, list(intervals)) == expected


def test_nothing_helps_before_every_control_has_run() -> None:
    above, below = Interval(2.0, 0.1, 3.9, 3), Interval(0.1, -0.7, 0.9, 3)
    assert conclude({"none": above}, ["none"]) == "helps"
    assert conclude({"none": above}, ["none", "mean depth map"]) == "cannot tell"
    assert conclude({"none": below}, ["none", "mean depth map"]) == "does not"  # the other one cannot make it help


def test_time_to_accuracy_of_a_worked_example(chain: Benchmark) -> None:
    facts = time_to_accuracy(chain)
    chained = [[300, 30.0], [900, 35.0], [1001, 38.0], [1151, 39.0], [1301, 39.5]]
    assert facts["curves"]["faithful"] == {"label": "chain", "seeds": {"1": chained}}  # seed 2 lacks DAF
    assert facts["curves"]["modern"]["seeds"]["2"] == [[100, 40.0], [360, 45.0]]
    # The first snapshot, after 100 steps, has 40 > 39.5: 100 / 1301.
    assert facts["passed"] == {"1": {"score": 39.5, "faithful_work": 1301, "work": 100, "ratio": 0.0769}}
    assert facts["mean_ratio"] == 0.0769
    assert passing_work([(1.0, 3.0), (2.0, 5.0)], 5.1) is None


def test_blocks_of_the_results_page(chain: Benchmark, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    blocks = ("results: main", "depth: main", "soon: main", "costs: main", "statistics: main", "hours: all_camvid")
    blocks += ("depth_scores: main",)
    page.write_text("".join(f"<!-- {block} -->\n<!-- end -->\n" for block in blocks))
    fill_page([chain], page)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.read_text().splitlines()]
    assert ["IDA", "2", "60.5 ± 0.7", "55.5 ± 0.7", "-", "55, 40", "1,301"] in rows
    assert "Not yet run: never run." in page.read_text()
    part = ["head", "none", "2", "+2.0 (-10.7 to +14.7)", "cannot tell", "+2.5 (-3.9 to +8.9)", "6.4"]
    assert part in rows
    assert ["IDA", "2", "0.250", "4.000", "0.300", "0.600"] in rows
    assert ["1", "39.5", "1,301", "100", "8 %"] in rows
    assert ["IDA", "3.00", "100", "300"] in rows
    assert "Measured on a processor, one thread, fp32, PyTorch 2.14, 2026-11-29." in page.read_text()
    assert "<!-- statistics: main -->\n*Not yet run.*" in page.read_text()
    fill_page([chain.model_copy(update={"results": tmp_path / "none"})], page)
    assert page.read_text().count("*Not yet") == len(blocks)


def test_cost_of_a_step_is_measured_once_for_equal_steps(tmp_path: Path) -> None:
    benchmark = load_benchmark(written(tmp_path, CHAIN)).model_copy(update={"results": tmp_path / "results"})
    file = write_costs(benchmark, None, 1, [*tiny_data.NETWORK, *tiny_data.SIZES])
    record = read_json(file)
    assert list(record["steps"]) == ["source", "daf", "isl", "ida", "upper", "control", "late"]
    assert record["steps"]["source"] == record["steps"]["upper"] == 1.0
    assert record["steps"]["daf"] == record["steps"]["control"] == record["steps"]["late"] > 0
    assert record["unit"] == "a step of source, fp32, one thread"
    assert write_costs(benchmark, ["source"], 1, [*tiny_data.NETWORK, *tiny_data.SIZES]) == file
    assert read_json(file) == record  # the same processor is named once
    write_json(file, {**record, "processor": "Processor A"})
    write_costs(benchmark, ["source"], 1, [*tiny_data.NETWORK, *tiny_data.SIZES])
    assert read_json(file)["processor"] == f"Processor A; {record['processor']}"
    with pytest.raises(ConfigError, match="has no roles"):
        write_costs(load_benchmark(written(tmp_path, PLAIN)))


def test_readme_shows_the_committed_rows() -> None:
    """The columns: seeds, then the means of mIoU and of the IoU of people and of objects.

    Of the benchmark's own seeds: further ones belong to single cells, and rows of other seeds do not compare.
    """
    own = {str(seed) for seed in load_benchmark("camvid_modern").seeds}
    target = read_json(ROOT / SUMMARY)["targets"]["camvid"]
    rows = {
        "source only": target["source_only"],
        "self-training + ISL + IDA": target["best_chain"],
        "trained on target labels": target["upper_bound"],
        "faithful chain (DAF + ISL + IDA), 240x180": "faithful_ida",
    }
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for label, row in rows.items():
        seeds = [scores for seed, scores in target["rows"][row]["seeds"].items() if seed in own]
        columns = ([s["miou"] for s in seeds], [s["iou"]["human"] for s in seeds], [s["iou"]["object"] for s in seeds])
        means = " | ".join(f"{np.mean(values):.1f}" for values in columns)
        assert f"| {label} | {len(seeds)} | {means} |" in readme


def committed() -> list[Benchmark]:
    """The shipped benchmarks with the results that are committed for them."""
    shipped = benchmarks_with_targets()
    folders = ("results", "repeated")
    paths = [{name: ROOT / path for name in folders if (path := getattr(each, name))} for each in shipped]
    return [each.model_copy(update=update) for each, update in zip(shipped, paths, strict=True)]


def test_committed_results_match_the_present_configs() -> None:
    for benchmark in [part for each in committed() for part in each.with_repeated()]:
        for file in sorted(benchmark.results.glob("seed*/*.json")):
            record = read_json(file)
            run = benchmark.by_name[record["cell"]]
            assert file == benchmark.file(run, record["seed"])
            assert record["settings"] == settings(cell_stage(run, record["seed"]).config), file


def test_committed_pages_and_summary_are_those_of_the_committed_results(tmp_path: Path) -> None:
    benchmarks = committed()
    for name in ("results.md", "results-details.md"):
        page, committed_text = tmp_path / name, (ROOT / "docs" / name).read_text()
        page.write_text(committed_text)
        assert {match[1] for match in MARK.findall(committed_text)} <= set(BLOCKS)
        fill_page(benchmarks, page)
        assert page.read_text() == committed_text
    assert read_json(ROOT / SUMMARY) == summary(benchmarks)
    if (ROOT / CURVES).is_file():
        assert read_json(ROOT / CURVES) == time_to_accuracy(benchmarks[0])
