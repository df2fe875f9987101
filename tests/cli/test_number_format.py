"""TRAIN.AMP: auto through the stages: one choice, recorded, kept by resumed runs, later stages and evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import entropy
import test as test_script
import train
import train_isl
from advent.checkpoints import auto_precision
from advent.config.schema import Precision
from daf import load_model
from helpers import tiny_data


def machine(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the machine prefers this format."""
    monkeypatch.setattr(auto_precision, "fastest_precision", lambda *_: Precision(chosen, "measured"))  # type: ignore[arg-type]


def precision(data: Path, file: str) -> dict[str, Any]:
    return json.loads((data / "exp/quick" / file).read_text())["precision"]


def test_the_first_stage_chooses_and_the_others_keep(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = tiny_data.command_line(data, "quick:daf", "TRAIN.AMP=auto")
    machine("bf16", monkeypatch)
    assert train.main(line) == 0
    assert precision(data, "daf/provenance.json") == {"format": "bf16", "reason": "measured"}
    plain = torch.load(data / "exp/quick/daf/model_6.pth")

    machine("off", monkeypatch)
    tiny_data.remove_end(data)
    assert train.main([*line, "--resume"]) == 0
    continued = torch.load(data / "exp/quick/daf/model_6.pth")
    assert all(torch.equal(plain[name], continued[name]) for name in plain)

    assert test_script.main(line) == 0
    assert precision(data, "daf/results.json")["format"] == "bf16"
    for script, stage in ((train_isl, "isl"), (entropy, "rank")):
        assert script.main(tiny_data.command_line(data, f"quick:{stage}", "TRAIN.AMP=auto")) == 0
        assert precision(data, f"{stage}/provenance.json")["format"] == "bf16"
    checkpoint = data / "exp/quick/daf/model_6.pth"
    assert load_model(checkpoint, device="cpu").amp == "bf16"
    assert load_model(checkpoint, device="cpu", amp="auto").amp == "off"
    assert load_model(checkpoint, device="cpu", amp="fp16").amp == "fp16"


def test_a_deterministic_run_is_in_fp32(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("bf16", monkeypatch)
    assert train.main(tiny_data.command_line(data, "quick:daf", "TRAIN.AMP=auto", "--deterministic")) == 0
    assert precision(data, "daf/provenance.json") == {"format": "off", "reason": "TRAIN.DETERMINISTIC"}


def test_measuring_does_not_change_the_run(data: Path) -> None:
    """The choice is real here; a run with that format given has the same weights."""

    def run(amp: str) -> dict[str, torch.Tensor]:
        assert train.main(tiny_data.command_line(data, "quick:daf", f"TRAIN.AMP={amp}")) == 0
        return torch.load(data / "exp/quick/daf/model_6.pth")

    measured = run("auto")
    chosen = precision(data, "daf/provenance.json")["format"]
    shutil.rmtree(data / "exp")
    given = run(chosen)
    assert all(torch.equal(measured[name], tensor) for name, tensor in given.items())
