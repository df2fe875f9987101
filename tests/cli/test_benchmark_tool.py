"""scripts/benchmark.py on tiny data: existing results are skipped, missing ones run again; the page is generated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import benchmark
import make_streets
from advent.errors import DataError
from advent.runtime.lock import FolderLock
from benchmarking import runs
from helpers import tiny_data

OVERRIDES = [*tiny_data.NETWORK, *tiny_data.SIZES, *tiny_data.SHORT, "DEVICE=cpu"]
CELLS = [
    {
        "name": "source_only",
        "label": "source only",
        "script": "train.py",
        "cfg": "quick:source_only",
        "scores": {"flipped": {"TEST.FLIP": "true"}},
    },
    {"name": "daf", "label": "DAF", "script": "train.py", "cfg": "quick:daf"},
    {
        "name": "inattentive",
        "label": "DAF without attention",
        "script": "train.py",
        "cfg": "quick:daf",
        "set": ["MODEL.ATTENTION=false"],
    },
    {"name": "isl", "label": "ISL", "script": "train_isl.py", "cfg": "quick:isl", "after": "daf"},
    {
        "name": "half",
        "label": "half of each",
        "script": "train_isl.py",
        "cfg": "quick:isl",
        "after": "daf",
        "set": ["ISL.CLASS_SHARE=0.5"],
    },
    {
        "name": "rank",
        "label": "random",
        "script": "entropy.py",
        "cfg": "quick:rank",
        "after": "isl",
        "set": ["RANK.MAP=random"],
    },
    {"name": "ida", "label": "IDA", "script": "train_intra.py", "cfg": "quick:ida", "after": "isl", "ranking": "rank"},
    {"name": "upper", "label": "upper", "script": "train.py", "cfg": "quick:source_only", "source": "target"},
]
NAMES = [cell["name"] for cell in CELLS]


@pytest.fixture
def place(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for index in range(tiny_data.COUNT):
        _, stripe = tiny_data.picture(index, 1)
        labels = np.asarray(tiny_data.CAMVID_IDS, np.uint8)[stripe]
        tiny_data.write_png(data / "CamVid" / "trainannot" / f"{index:04d}.png", labels)
    described: dict[str, Any] = {
        "results": "results",
        "seeds": [1, 2],
        "scores": {"development": {"TEST.SET_TARGET": "train"}},
        "target": "own",
        "roles": {"source_only": "source_only", "upper_bound": "upper", "best_chain": "ida"},
        "curves": {"chain": {"label": "chain", "last": "ida"}},
        "cells": CELLS,
        "tables": [{"name": "main", "rows": NAMES, "differences": [["daf", "source_only"]]}],
    }
    (data / "own.yml").write_text(yaml.safe_dump(described))
    monkeypatch.chdir(data)
    return data


def run(place: Path, *options: str) -> int:
    line = [
        "--benchmark",
        str(place / "own.yml"),
        *options,
        f"DATA_ROOT={place}",
        f"EXP_ROOT={place / 'exp'}",
        *OVERRIDES,
    ]
    return benchmark.main(line)


def record(place: Path, cell: str, seed: int = 1) -> dict[str, Any]:
    return json.loads((place / f"results/seed{seed}/{cell}.json").read_text())


def test_cells_write_results_and_are_not_run_twice(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--seeds", "1", "TEST.MODE=best") == 0
    assert sorted(p.stem for p in (place / "results/seed1").glob("*.json")) == sorted(NAMES)
    ida = record(place, "ida")
    assert ida["command"] == "python scripts/benchmark.py --benchmark own --seeds 1 --only ida"
    assert ida["oracle"]["miou"] >= ida["last"]["miou"]
    assert len(ida["snapshots"]) >= 2
    assert 0 <= ida["development"]["miou"] <= 100
    # All snapshots of the cells on the curve are scored on the development set, and only theirs.
    assert [iterations for iterations, _ in ida["curve"]] == [4, 6]
    assert ida["curve"][-1][1] == ida["development"]["miou"]
    assert [name for name in NAMES if "curve" in record(place, name)] == ["daf", "isl", "ida"]
    # A cell's own score.
    assert [name for name in NAMES if "flipped" in record(place, name)] == ["source_only"]
    assert ida["threads"] >= 1
    assert ida["core_seconds"] > 0
    assert record(place, "upper")["settings"]["SOURCE"] == "CamVid"
    ranking = record(place, "rank")["ranking"]
    assert ranking["easy"] + ranking["hard"] == tiny_data.COUNT
    assert ranking["spearman"] is None or -1 <= ranking["spearman"] <= 1
    plain, half = record(place, "isl")["labels"], record(place, "half")["labels"]
    assert plain["kept"] == half["kept"] == 100  # the threshold 0.1 is below 1 / 7: no class threshold can be lowered
    assert set(plain["coverage"]) == set(plain["precision"])

    assert run(place, "--picture", "grid.jpg") == 0
    assert (place / "grid.jpg").read_bytes().startswith(b"\xff\xd8")

    # Without the weights and one result, only the stages before that result are trained again.
    before = record(place, "ida")
    shutil.rmtree(place / "exp")
    (place / "results/seed1/ida.json").unlink()
    kept = {p: p.read_bytes() for p in (place / "results").rglob("*.json")}
    assert run(place, "--seeds", "1") == 0
    assert {p: p.read_bytes() for p in kept} == kept
    assert record(place, "ida")["last"] == before["last"]
    assert "oracle" not in record(place, "ida")  # TEST.MODE is last: one snapshot is scored on val
    assert not (place / "exp/quick_seed1/upper").exists()

    # A required cell without results is measured on the way.
    assert run(place, "--seeds", "2", "--only", "isl") == 0
    assert sorted(p.stem for p in (place / "results/seed2").glob("*.json")) == ["daf", "isl"]
    assert run(place, "--seeds", "2", "--only", "source_only") == 0
    capsys.readouterr()
    assert benchmark.main(["--benchmark", "own.yml", "--status"]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in capsys.readouterr().out.splitlines()]
    assert ["source only", "2"] in rows
    assert ["DAF", "2"] in rows
    page = place / "page.md"
    blocks = ("scores: main", "differences: main", "rankings: main", "labels: main", "hours: all")
    page.write_text("".join(f"<!-- {block} -->\n<!-- end -->\n" for block in blocks))
    pytest.importorskip("matplotlib")
    assert benchmark.main(["--benchmark", "own.yml", "--plot", "plot.png"]) == 2
    assert "no cell of own has both results and a cost" in capsys.readouterr().err
    costs = {"steps": dict.fromkeys(NAMES, 1.0), "processor": "a processor", "torch": "2.14", "date": "2026-11-29"}
    (place / "results/cost.json").write_text(json.dumps(costs))
    assert benchmark.main(["--benchmark", "own.yml", "--page", "page.md", "--plot", "plot.png"]) == 0
    assert "DAF - source only" in page.read_text()
    assert (place / "plot.png").stat().st_size > 5000
    assert benchmark.main(["--benchmark", "own.yml", "--summary", "--curves"]) == 0
    assert run(place, "--picture", "grid.jpg") == 2  # the second run skipped the finished cells
    assert "the weights of upper, seed 1, are missing" in capsys.readouterr().err
    seeds = json.loads((place / "docs/data/summary.json").read_text())["targets"]["own"]["rows"]["ida"]["seeds"]
    assert seeds["1"]["miou"] == pytest.approx(record(place, "ida")["last"]["miou"], abs=0.01)
    assert (place / "docs/data/time_to_accuracy.json").is_file()


def test_the_cost_of_a_step_is_stored_with_the_results(place: Path) -> None:
    assert run(place, "--cost", "--only", "source_only", "isl", "--rounds", "1") == 0
    steps = json.loads((place / "results/cost.json").read_text())["steps"]
    assert steps["source_only"] == 1.0
    assert steps["isl"] > 0


def test_predicted_depth_is_scored_if_the_benchmark_asks_for_it(place: Path) -> None:
    scenes = ["--count", "2", "--val-count", "2", "--size", "64x48", "--style", "real", "--workers", "1"]
    assert make_streets.main(["--out", str(place / "real"), *scenes]) == 0
    target = ["TARGET=streets_real", f"DATA_DIRECTORY_TARGET={place / 'real'}"]
    described = yaml.safe_load((place / "own.yml").read_text())
    for cell in described["cells"]:
        cell["set"] = [*cell.get("set", []), *target]
    (place / "own.yml").write_text(yaml.safe_dump({**described, "scores": {}, "curves": {}, "depth_scores": True}))
    assert run(place, "--seeds", "1", "--only", "daf", "source_only") == 0
    assert record(place, "daf")["depth"]["abs rel"] > 0
    assert "depth" not in record(place, "source_only")  # quick:source_only has no depth head


def test_results_of_other_settings_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--seeds", "1", "--only", "source_only") == 0
    assert run(place, "--seeds", "1", "--only", "source_only", "TRAIN.LEARNING_RATE=0.5") == 2
    assert "was made with another TRAIN.LEARNING_RATE (0.001, now 0.5)" in capsys.readouterr().err


def test_an_unknown_cell_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--only", "duf") == 2
    assert "--only duf: there is no such cell; did you mean daf" in capsys.readouterr().err


def test_missing_images_of_the_clip_are_found_before_training(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described = yaml.safe_load((place / "own.yml").read_text())
    described["scores"] = {"development": {"TARGET": "camvid_dusk", "TEST.SET_TARGET": "dev"}}
    (place / "own.yml").write_text(yaml.safe_dump(described))
    assert run(place, "--seeds", "1", "--only", "source_only") == 2
    assert "0001TP_" in capsys.readouterr().err
    assert not (place / "exp").exists()


def test_a_cell_of_another_process_comes_last(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While another process holds daf, this one runs source_only; then it takes daf, whose holder has ended."""
    lock = FolderLock(place / "exp/quick_seed1/.cells/daf").acquire()
    finished: list[list[str]] = []

    def wait() -> None:
        finished.append(sorted(p.stem for p in (place / "results").rglob("*.json")))
        if len(finished) == 2:
            lock.release()

    monkeypatch.setattr(runs, "_wait", wait)
    with caplog.at_level("INFO"):
        assert run(place, "--seeds", "1", "--only", "daf", "isl", "source_only") == 0
    assert finished == [["source_only"], ["source_only"]]
    assert sorted(p.stem for p in (place / "results").rglob("*.json")) == ["daf", "isl", "source_only"]
    assert sum("daf: another process runs it" in line for line in caplog.messages) == 1


def test_time_of_interrupted_training_is_added(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(stage: Any) -> None:
        run_stage(stage)
        (stage.run_dir.path / "finished.json").unlink()
        raise DataError("killed")

    run_stage = runs.run_stage
    monkeypatch.setattr(runs, "run_stage", killed)
    monkeypatch.setattr(runs, "_core_seconds", iter([0, 30.04, 100, 112]).__next__)
    assert run(place, "--seeds", "1", "--only", "source_only") == 2
    monkeypatch.setattr(runs, "run_stage", run_stage)
    assert run(place, "--seeds", "1", "--only", "source_only") == 0
    assert record(place, "source_only")["core_seconds"] == 42.0
