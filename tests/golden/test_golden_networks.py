"""Networks against golden values: parameter names, shapes, eval- and train-mode outputs in float64."""

import pytest
import torch

from advent.model.deeplabv2 import get_deeplab_v2
from advent.model.discriminator import get_fc_discriminator
from daf.model.dada import get_deeplab_v2_depth as get_dada
from daf.model.deeplabv2_depth import get_deeplab_v2_depth as get_daf
from golden.golden import fill, load, normal, probe

NETWORKS = {
    "daf_deeplabv2_depth": lambda: get_daf(16),
    "dada_deeplabv2_depth": lambda: get_dada(16),
    "advent_deeplabv2_multi": lambda: get_deeplab_v2(16, multi_level=True),
    "advent_deeplabv2_single": lambda: get_deeplab_v2(16, multi_level=False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    golden = load(f"model_{name}")
    net = NETWORKS[name]()
    assert [[n, list(t.shape)] for n, t in net.state_dict().items()] == golden["state_dict"]
    fill(net)
    images = normal(1, 1, 3, 65, 97, scale=50)
    for mode in ("eval", "train"):
        net.train(mode == "train")
        with torch.no_grad():
            outputs = net(images)
        expected = [golden[mode][key] for key in ("aux", "main", "depth") if key in golden[mode]]
        assert len(outputs) == len(expected)
        for got, want in zip(outputs, expected, strict=True):
            assert got is None if want is None else probe(got, want) is None
    probe(net.bn1.running_mean, golden["bn1.running_mean_after_one_train_forward"])


def test_discriminator():
    golden = load("discriminator")
    net = get_fc_discriminator(16)
    assert [[n, list(t.shape)] for n, t in net.state_dict().items()] == golden["state_dict"]
    probe(fill(net, "D.")(normal(2, 1, 16, 70, 90, scale=0.1)), golden["output"])
