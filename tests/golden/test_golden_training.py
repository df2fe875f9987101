"""Two training steps of DAF (as released and symmetric), DADA and AdvEnt against golden values."""

import numpy as np
import pytest
import torch

import daf.methods  # noqa: F401  (registers networks and methods)
from advent.config.loading import default_config
from advent.methods.registry import find_method, find_network
from advent.model.encoder import ResNetEncoder
from advent.training.learner import Learner
from golden.golden import close, fill, load, normal, probe
from helpers.device import DEVICE

RUNS = {
    "daf_as_released (source depth^1, target depth^2)": ("DAF", "DeepLabv2_depth", [1, 2]),
    "daf_symmetric (depth^1 on both)": ("DAF", "DeepLabv2_depth", [1, 1]),
    "dada": ("DADA", "DeepLabv2_depth_DADA", [1, 1]),
    "advent_single_level (discriminator losses halved)": ("AdvEnt", "DeepLabv2", [1, 1]),
}


def batches(step):
    labels = np.random.RandomState(200 + step).randint(0, 18, (1, 64, 80))
    labels[labels >= 16] = 255
    source = {
        "image": normal(100 + step, 1, 3, 64, 80, scale=50),
        "label": torch.from_numpy(labels).to(DEVICE),
        "depth": normal(300 + step, 1, 64, 80, scale=20).abs(),
    }
    return source, {"image": normal(400 + step, 1, 3, 48, 96, scale=50)}


@pytest.mark.parametrize("name", RUNS)
def test_two_steps(name):
    golden = load("training_steps")[name]
    config = default_config()
    config.TRAIN.DA_METHOD, config.MODEL.NAME, config.TRAIN.DEPTH_POWER = RUNS[name]
    network = find_network(config)
    net = fill(network.build(config, ResNetEncoder()))
    learner = Learner(net, find_method(config), network.supervised, config.TRAIN, DEVICE)
    discriminator = fill(learner.context.discriminators["main"], "D.")
    for step, want in enumerate(golden["losses"]):
        losses = learner.update(step, *batches(step))
        assert set(losses) == set(want) | {"gradient", "gradient_d"}
        for key, value in want.items():
            close(losses[key], value)
    state = net.state_dict()
    for key, want in golden["after"].items():
        probe(state[key], want)
    probe(state["bn1.running_var"], golden["bn1.running_var"])
    for key, want in golden["discriminator_after"].items():
        probe(discriminator.state_dict()[key], want)
