"""TRAIN.AMP: auto: what a stage keeps, and what it asks the machine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advent.checkpoints import auto_precision
from advent.checkpoints.auto_precision import labelling_passes, scoring_passes, settle_precision, training_passes
from advent.checkpoints.provenance import FILE
from advent.config.loading import config_digest, default_config, dump_config, load_config
from advent.config.schema import Config, Precision
from advent.model.precision_probe import Passes
from advent.utils.serialization import write_json

CPU = torch.device("cpu")
MEASURED = Precision("fp16", "measured")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Passes]:
    """The passes that were measured; the answer is MEASURED."""
    passes: list[Passes] = []

    def measure(net: nn.Module, device: torch.device, given: Passes) -> Precision:
        passes.append(given)
        return MEASURED

    monkeypatch.setattr(auto_precision, "fastest_precision", measure)
    return passes


def config_of(**train: Any) -> Config:
    config = default_config()
    for key, value in {"AMP": "auto", **train}.items():
        setattr(config.TRAIN, key, value)
    return config


def recorded(folder: Path, chosen: str, device: str = "cpu") -> Path:
    record = {"device": {"type": device}, "precision": {"format": chosen, "reason": "measured"}}
    write_json(folder / FILE, record)
    return folder


def settle(config: Config, **places: Path | None) -> Precision:
    settle_precision(config, nn.Identity, CPU, training_passes(config), **places)
    return config.TRAIN.precision


def test_an_undecided_auto_is_no_format() -> None:
    with pytest.raises(AssertionError, match="not decided yet"):
        _ = config_of().TRAIN.precision


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_given_format_is_used_without_asking(amp: str, asked: list[Passes], tmp_path: Path) -> None:
    assert settle(config_of(AMP=amp), start=recorded(tmp_path, "bf16") / "model_1.pth") == (amp, "TRAIN.AMP")
    assert asked == []


def test_without_a_record_the_machine_decides(
    asked: list[Passes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert settle(config_of(), start=tmp_path / "model_1.pth") == MEASURED
    assert caplog.messages == ["TRAIN.AMP: auto: fp16 (measured)"]
    assert asked == [Passes(1, [1280, 760], trains=True)]


def test_a_continued_run_keeps_its_own_format(asked: list[Passes], tmp_path: Path) -> None:
    """Also on another device, and with --deterministic: its weights depend on the format."""
    own, other = recorded(tmp_path / "own", "bf16", "cuda"), recorded(tmp_path / "other", "off")
    kept = settle(config_of(DETERMINISTIC=True), resumed=own, start=other / "model_1.pth")
    assert kept == ("bf16", f"as in {own / FILE}")
    assert asked == []


def test_a_later_stage_keeps_the_format_of_the_one_before(asked: list[Passes], tmp_path: Path) -> None:
    checkpoint = recorded(tmp_path, "bf16") / "model_1.pth"
    assert settle(config_of(), start=checkpoint).format == "bf16"
    assert asked == []


@pytest.mark.parametrize("record", [{}, {"precision": {"format": "fp8"}}, {"precision": {}}])
def test_a_record_of_an_earlier_version_decides_nothing(
    record: dict[str, Any], asked: list[Passes], tmp_path: Path
) -> None:
    write_json(tmp_path / FILE, record)
    assert settle(config_of(), start=tmp_path / "model_1.pth", resumed=tmp_path) == MEASURED


def test_the_format_of_another_device_is_not_kept(asked: list[Passes], tmp_path: Path) -> None:
    assert settle(config_of(), start=recorded(tmp_path, "bf16", "cuda") / "model_1.pth") == MEASURED


def test_deterministic_runs_take_fp32(asked: list[Passes], tmp_path: Path) -> None:
    checkpoint = recorded(tmp_path, "bf16") / "model_1.pth"
    assert settle(config_of(DETERMINISTIC=True), start=checkpoint) == ("off", "TRAIN.DETERMINISTIC")
    assert asked == []


def test_the_config_stays_auto(asked: list[Passes]) -> None:
    """Its digest and its file do not depend on the machine; a copy keeps the choice."""
    config = config_of()
    before = config_digest(config), dump_config(config)
    settle(config)
    assert (config_digest(config), dump_config(config)) == before
    assert config.TRAIN.AMP == "auto"
    assert config.model_copy(deep=True).TRAIN.precision == MEASURED


def test_rank_0_decides_for_all(asked: list[Passes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_precision.distributed, "broadcast_object", lambda decide: Precision("bf16", "rank 0"))
    assert settle(config_of()) == ("bf16", "rank 0")
    assert asked == []


def test_passes_are_those_of_the_stage() -> None:
    config = load_config("ep1_modern")
    assert training_passes(config) == Passes(2, [1024, 1024], trains=True)
    assert labelling_passes(config) == Passes(1, [1024, 1024], trains=False)
    assert scoring_passes(config) == Passes(1, [1024, 1024], trains=False)
    assert scoring_passes(load_config("quick_modern")) == Passes(1, [480, 360], trains=False)


@pytest.mark.parametrize(
    ("cfg", "amp"),
    [
        *[(name, "auto") for name in ("quick_modern:isl", "ep1_modern", "ep1_modern_24gb", "ep2_modern", "ep3_modern")],
        *[(name, "auto") for name in ("gta5_modern", "quick_modern:self_training")],
        *[(name, "off") for name in ("quick:daf", "ep1", "ep2:ida", "ep3", "gta5", "camvid7", "ep1_intrada")],
    ],
)
def test_modern_protocols_ask_the_machine_and_the_papers_do_not(cfg: str, amp: str) -> None:
    assert amp == load_config(cfg).TRAIN.AMP
