"""--tensorboard: logged scalars and images; training is byte-identical with and without it."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
import train_isl
from advent.model.outputs import NetworkOutputs
from advent.training import tensorboard
from daf.interaction import depth_aware_map
from helpers import tiny_data

NAMES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    return accumulator.Reload()


def test_logged_scalars_and_images(data: Path) -> None:
    line = ["--tensorboard", "TRAIN.PICTURES_EVERY=3", "TRAIN.EVAL_EVERY=3"]
    assert train.main(tiny_data.command_line(data, "quick:daf", *line)) == 0
    shown = events(data / "exp/quick/daf")
    scalars = set(shown.Tags()["scalars"])
    assert scalars >= {"seg", "depth", "adv", "d_source", "d_target", "lr", "lr_d", "waiting_share", "test_miou"}
    assert scalars >= {f"test_iou/{name}" for name in NAMES}
    assert all(0 <= event.value <= 1 for event in shown.Scalars("waiting_share"))
    assert [event.step for event in shown.Scalars("test_iou/sky")] == [2, 5]
    for domain, columns in (("source", 7), ("target", 5)):
        pictures = shown.Images(f"pictures/{domain}")
        assert [event.step for event in pictures] == [0, 3, 6]
        drawn = Image.open(io.BytesIO(pictures[0].encoded_image_string))
        assert drawn.width == columns * (tensorboard.TILE_WIDTH + 4) + 4
        assert drawn.height > 18 + 2 * (180 + 4)  # two examples and a legend


def test_training_is_identical_without_tensorboard(data: Path) -> None:
    folder = data / "exp/quick/daf"
    states = []
    for options in ([], ["--tensorboard", "TRAIN.PICTURES_EVERY=1"]):
        shutil.rmtree(data / "exp", ignore_errors=True)
        assert train.main(tiny_data.command_line(data, "quick:daf", *options)) == 0
        states.append({path.name: path.read_bytes() for path in folder.glob("*.pth")})
        states[-1]["metrics.jsonl"] = (folder / "metrics.jsonl").read_bytes()
    assert len(states[0]) > 3
    assert states[0] == states[1]


def test_self_learning_shows_its_pseudo_labels(trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(trained, root, ignore=shutil.ignore_patterns("isl", "ida", "rank"))
    assert train_isl.main(tiny_data.command_line(root, "quick:isl", "--tensorboard", "TRAIN.PICTURES_EVERY=5")) == 0
    shown = events(root / "exp/quick/isl")
    assert [event.step for event in shown.Images("pictures/source")] == [0, 5]
    assert "pictures/target" not in shown.Tags()["images"]


def test_logged_map_is_the_depth_aware_map(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, depth = torch.randn(1, 7, 4, 6, generator=generator), torch.rand(1, 1, 4, 6, generator=generator) + 1
    seen: list[np.ndarray] = []

    class Dataset:
        classes, mean, pseudo = type("C", (), {"names": NAMES, "colors": [(9, 9, 9)] * 7}), (0, 0, 0), None

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"image": torch.zeros(3, 4, 6)}

    def heat(values: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
        seen.append(values)
        return np.zeros((*values.shape, 3), np.uint8)

    monkeypatch.setattr(tensorboard, "predict_images", lambda *_: [NetworkOutputs(None, logits, depth)])
    monkeypatch.setattr(tensorboard, "heatmap", heat)
    tensorboard.domain_grid(MagicMock(), Dataset(), 1)  # type: ignore[arg-type]
    np.testing.assert_allclose(seen[-1], depth_aware_map(logits, depth)[0].sum(0).numpy(), rtol=1e-5)
