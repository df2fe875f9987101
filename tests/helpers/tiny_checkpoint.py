"""A tiny network with random weights on disk, as a stage leaves it."""

from __future__ import annotations

from pathlib import Path

import torch

from advent.build import build_network
from advent.checkpoints.io import save
from advent.config.loading import dump_config, load_config
from helpers import tiny_data


def write_stage(folder: Path, cfg: str = "quick:daf", iteration: int = 6) -> Path:
    """`model_{iteration}.pth` and config.yml of `cfg` with tiny_data's network; returns the checkpoint."""
    config = load_config(cfg, [*tiny_data.NETWORK, *tiny_data.SIZES])
    torch.manual_seed(iteration)
    checkpoint = save(folder / f"model_{iteration}.pth", build_network(config).state_dict())
    (folder / "config.yml").write_text(dump_config(config), encoding="utf-8")
    return checkpoint
