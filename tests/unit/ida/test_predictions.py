"""Predictions of the target that are read twice: from memory if they fit, else by the network again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advent.build import target_data
from advent.config.loading import load_config
from advent.config.schema import Config
from helpers import tiny_data
from ida import predictions
from ida.predictions import Predictions
from ida.pseudo_labels import label_dataset

CPU = torch.device("cpu")


class Network(nn.Module):
    """Logits, auxiliary logits and depth at stride 4 from the colours; counts its passes."""

    passes = 0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.passes += 1
        small = nn.functional.avg_pool2d(images, 4) / 20
        logits = small.repeat(1, 3, 1, 1)[:, :7] * torch.arange(1.0, 8).view(1, 7, 1, 1)
        return logits.flip(1), logits, small.mean(1, keepdim=True).exp()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tiny_data.make_data(tmp_path)
    options = [*tiny_data.NETWORK, *tiny_data.SIZES, f"DATA_ROOT={tmp_path}", "TEST.BATCH_SIZE_TARGET=3"]
    return load_config("quick:isl", [*options, "NUM_WORKERS=0", "ISL.CLASS_SHARE=0.5"])


def read(source: Predictions) -> list[Any]:
    return [(list(names), p.main.clone(), p.depth.clone(), p.aux) for names, p in source.read("images")]


@pytest.mark.parametrize(("room", "passes"), [(2**30, 3), (5000, 6)])
def test_a_second_reading_repeats_the_first(
    config: Config, room: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "KEPT_BYTES", room)
    net = Network()
    source = Predictions(net, target_data(config), config, CPU, again=True)
    first, second = read(source), read(source)
    assert net.passes == passes  # eight images, three a batch
    assert sum(len(names) for names, *_ in first) == tiny_data.COUNT
    for (names, logits, depth, aux), (names2, logits2, depth2, aux2) in zip(first, second, strict=True):
        assert names == names2
        assert torch.equal(logits, logits2)
        assert torch.equal(depth, depth2)
        assert aux is aux2 is None
        assert logits.shape[-2:] == (tiny_data.HEIGHT, tiny_data.WIDTH)


def test_a_reading_that_is_broken_off_is_not_taken_for_all(config: Config) -> None:
    net = Network()
    source = Predictions(net, target_data(config), config, CPU, again=True)
    next(iter(source.read("images")))
    assert len(read(source)) == 3
    assert net.passes == 4


def test_labels_are_the_same_from_memory_and_by_two_passes(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares, nets = [], [Network(), Network()]
    for room, net in zip((2**30, 0), nets, strict=True):
        monkeypatch.setattr(predictions, "KEPT_BYTES", room)
        shares.append(label_dataset(net, target_data(config), config, CPU, tmp_path / str(room), "round_0"))
    assert [net.passes for net in nets] == [3, 6]
    assert 0 < shares[0] == shares[1] < 1
    files = sorted(path.name for path in (tmp_path / "0").iterdir())
    assert len(files) == tiny_data.COUNT
    for name in files:
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / str(2**30) / name).read_bytes()
