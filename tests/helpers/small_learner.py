"""Learner and batches for unit tests; a step takes hundredths of a second."""

from __future__ import annotations

import torch

import daf.methods  # noqa: F401
from advent.config.loading import default_config
from advent.methods.registry import find_method, find_network
from advent.model.deeplabv2 import initialise
from advent.model.encoder import ResNetEncoder
from advent.training.learner import Learner


def small_learner(method="AdvEnt", network="DeepLabv2", device="cpu", model=None, **train):
    """Learner of a tiny network. `model`: keys of the MODEL section; `train`: keys of the TRAIN section."""
    config = default_config()
    config.TRAIN.DA_METHOD, config.MODEL.NAME = method, network
    for key, value in (model or {}).items():
        setattr(config.MODEL, key, value)
    for key, value in train.items():
        setattr(config.TRAIN, key, value)
    torch.manual_seed(0)
    entry = find_network(config)
    net = entry.build(config, ResNetEncoder((1, 1, 1, 1), 8))
    initialise(net, "he")
    return Learner(net, find_method(config), entry.supervised, config.TRAIN, torch.device(device))


def batches():
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(2, 3, 48, 64, generator=generator) * 50
    return {"image": image, "label": torch.randint(0, 16, (2, 48, 64), generator=generator)}, {"image": image.flip(3)}
