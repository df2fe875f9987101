"""Scores in coarser classes: the mapping follows from label ids, and the matrix counts at the labels' size."""

from __future__ import annotations

from pathlib import Path

import pytest

import score_coarse
from advent.dataset.classes import load_classes
from advent.dataset.spec import load_spec
from advent.errors import ConfigError
from helpers import tiny_data

EXPECTED = {
    "flat": ["road", "sidewalk"],
    "construction": ["building", "wall", "fence"],
    "object": ["pole", "light", "sign"],
    "nature": ["vegetation"],
    "sky": ["sky"],
    "human": ["person", "rider"],
    "vehicle": ["car", "bus", "motorcycle", "bicycle"],
}


def test_each_class_becomes_its_group() -> None:
    fine, coarse = load_classes("street16"), load_classes("street7")
    table = score_coarse.coarse_table(fine, coarse, load_spec("cityscapes"))
    groups = {name: [fine.names[i] for i in range(16) if table[i] == k] for k, name in enumerate(coarse.names)}
    assert groups == EXPECTED


def test_a_mapping_that_loses_a_class_is_one_line() -> None:
    # SYNTHIA's 7 classes have no id for its wall.
    with pytest.raises(ConfigError, match="wall of street16 belongs to no single class of street7") as error:
        score_coarse.coarse_table(load_classes("street16"), load_classes("street7"), load_spec("synthia"))
    assert "\n" not in str(error.value)


def test_the_shipped_checkpoint_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_data.make_target(tmp_path / "CamVid", count=2)
    assert score_coarse.main(["--root", str(tmp_path / "CamVid"), "--device", "cpu"]) == 0
    table = capsys.readouterr().out
    assert "CamVid val, 2 images" in table
    assert all(name in table for name in EXPECTED)
    assert score_coarse.main(["--root", str(tmp_path / "missing")]) == 2
