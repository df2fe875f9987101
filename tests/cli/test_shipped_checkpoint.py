"""The shipped checkpoint: its documented score, its card, and prediction without a named checkpoint."""

from __future__ import annotations

import json
import logging
import re
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict as predict_script
import test as test_script
from advent.checkpoints.formats import open_checkpoint
from advent.checkpoints.io import digest
from advent.config.loading import load_config
from advent.dataset.spec import load_spec
from advent.errors import CheckpointError, ConfigError
from advent.utils.paths import PRETRAINED, PROJECT
from daf import load_model, predict, sharing
from daf.model_card import documented_miou
from streets.pictures import render

WEIGHTS, CARD = PRETRAINED / "streets.safetensors", PRETRAINED / "streets.md"
LARGEST = 10_000_000  # bytes


def has_tested_versions() -> bool:
    """Whether the libraries that render and score have the versions of constraints.txt."""
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE))
    used = ("numpy", "opencv-python-headless", "torch", "timm")
    return all(metadata.version(name).partition("+")[0] == pins[name] for name in used)


def test_the_documented_score_is_reproduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)  # the files are found from any folder; data and results are written here
    with caplog.at_level(logging.INFO):
        assert test_script.main(["--cfg", "pretrained/streets.yml", "--device", "cpu", "NUM_WORKERS=0"]) == 0
    record = json.loads((tmp_path / "experiments/streets/shipped/results.json").read_text())
    documented = documented_miou(CARD, "streets_test")
    assert documented is not None
    exact = has_tested_versions()
    assert record["results"][0]["miou"] == pytest.approx(documented, abs=0.1 if exact else 0.5)
    assert record["results"][0]["sha256"] == digest(WEIGHTS)
    setup = load_spec("streets_test").render
    assert setup is not None
    assert setup.sha256 is not None
    assert record["images"] == setup.count
    said = [line.getMessage() for line in caplog.records]
    assert any(f"{setup.count} rendered scenes" in line and "SHA-256" in line for line in said)
    assert any(f"documents mIoU {documented:.1f} on streets_test" in line for line in said)
    if exact:
        assert any("(as documented)" in line for line in said)


def test_the_card_names_the_file_and_its_limits() -> None:
    card = CARD.read_text()
    assert WEIGHTS.stat().st_size < LARGEST
    assert digest(WEIGHTS) in card
    for words in ("Apache", "CamVid", "seed", "## Limits", "## Recipe", "## Data", "## Scores"):
        assert words in card
    documented = documented_miou(CARD, "streets_test")
    assert f"{documented:.1f}" in card.partition("## Scores")[2]  # the table and the front matter agree
    stored = open_checkpoint(WEIGHTS).weights
    assert {str(tensor.dtype) for name, tensor in stored.items() if "running" in name} == {"torch.float32"}
    depth = [tensor for name, tensor in stored.items() if name.startswith("depth_head.") and tensor.is_floating_point()]
    assert {tensor.dtype for tensor in depth} == {torch.float32}
    assert stored["head.classifier.weight"].dtype == torch.float16


def test_the_config_names_no_folder_of_a_machine() -> None:
    config = load_config(PRETRAINED / "streets.yml")
    assert (config.TARGET, config.TEST.MODE, config.TEST.BN_STATISTICS) == ("streets_test", "single", "checkpoint")
    assert not re.search(r"(?<![\w.])/(?!/)\w+/", (PRETRAINED / "streets.yml").read_text())


def test_a_photograph_is_predicted_without_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = render(np.random.default_rng([77, 1]), 320, 240, "real")
    Image.fromarray(scene.image).save(tmp_path / "photo.jpg", quality=92)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        assert predict_script.main(["--input", "photo.jpg", "--device", "cpu"]) == 0
    lines = [line.getMessage() for line in caplog.records if "shipped" in line.getMessage()]
    assert len(lines) == 1
    assert "pretrained/streets.safetensors" in lines[0]
    classes = np.asarray(Image.open(tmp_path / "predictions/classes/photo.png"))
    ids = load_spec("synthia").table(load_model(device="cpu").classes)[scene.label]
    known = ids != 255
    assert (classes == ids)[known].mean() > 0.6  # a map of the scene, not noise: a constant map has less


def test_load_model_without_a_name_is_the_shipped_network() -> None:
    model = load_model(device="cpu")
    assert model.checkpoint == WEIGHTS
    assert len(model.classes) == 16
    assert {parameter.dtype for parameter in model.net.parameters()} == {torch.float32}
    named = load_model("pretrained/streets.safetensors", device="cpu")
    photo = np.random.RandomState(1).randint(0, 256, (48, 64, 3)).astype(np.uint8)
    np.testing.assert_array_equal(predict(model, photo).classes, predict(named, photo).classes)


def test_a_config_without_a_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict_script.main(["--cfg", "ep1", "--input", str(tmp_path)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert "--checkpoint FILE" in line
    with pytest.raises(ConfigError, match="--checkpoint FILE"):
        load_model(None, "ep1")


def test_a_missing_shipped_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PRETRAINED", tmp_path)
    with pytest.raises(CheckpointError, match=r"streets.safetensors: the shipped checkpoint is missing") as error:
        load_model()
    assert "\n" not in str(error.value)
