"""AdamW, warm-up and layer-wise learning rates."""

import copy
import io
import math

import pytest
import torch

from advent.config.loading import default_config
from advent.errors import ConfigError
from advent.model.timm_encoder import TimmEncoder
from advent.training.optim import layer_scales, network_optimizer
from advent.utils.schedule import warmup_factor
from helpers.small_learner import batches, small_learner

ADAMW = {"OPTIMIZER": "adamw", "BACKBONE_UPDATES": "once"}
FUSION = {"HEAD": "fusion", "HEAD_WIDTH": [8, 16], "DROPOUT": 0.5}


class Backbone:
    """A network with a timm encoder alone, and a classifier of one parameter."""

    def __init__(self, name):
        net = torch.nn.Module()
        self.blueprint = TimmEncoder(name, (104.0, 116.0, 122.0))
        self.blueprint.install(net)
        self.parameters = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
        self.head = [("head.weight", torch.nn.Parameter(torch.ones(2, 2)))]

    def backbone_parameters(self):
        return self.parameters

    def head_parameters(self):
        return self.head


def test_adamw_by_hand():
    """First step of AdamW: w - rate * decay * w - rate * sign(gradient), as m / sqrt(v) is the gradient's sign."""
    learner = small_learner("SourceOnly", LEARNING_RATE=1e-3, WEIGHT_DECAY=0.5, WARMUP=4, **ADAMW)
    before = {name: p.detach().clone() for name, p in learner.net.named_parameters()}
    learner.update(0, batches()[0])
    for name, rate in (("layer1.0.conv1.weight", 1e-3 / 4), ("layer6.conv2d_list.0.weight", 1e-2 / 4)):
        p = learner.net.get_parameter(name)
        clear = p.grad.abs() > 1e-5  # else epsilon counts
        assert clear.any()
        expected = before[name] * (1 - rate * 0.5) - rate * p.grad.sign()
        torch.testing.assert_close(p.detach()[clear], expected[clear], rtol=0, atol=2e-3 * rate + 1e-7)


def test_norms_biases_and_positions_are_not_decayed():
    learner = small_learner("DAF", "DeepLabv2_depth", model=FUSION, WEIGHT_DECAY=0.01, **ADAMW)
    decay = {id(p): g["weight_decay"] for g in learner.optimizers["net"].param_groups for p in g["params"]}
    trained = [(name, p) for name, p in learner.net.named_parameters() if p.requires_grad]
    assert len(decay) == len(trained)
    for _, p in trained:
        assert decay[id(p)] == (0.01 if p.ndim == 4 else 0.0)
    assert learner.optimizers["net"].defaults["betas"] == (0.9, 0.999)


def test_sgd_groups_are_those_of_the_authors_code():
    groups = small_learner().optimizers["net"].param_groups
    assert [(group["lr_scale"], group["repeats"], group["weight_decay"]) for group in groups] == [
        (1.0, 1, 5e-4),
        (10.0, 1, 5e-4),
        (1.0, 3, 5e-4),
        (1.0, 4, 5e-4),
    ]


def test_warmup_multiplies_the_networks_rate_alone():
    assert [warmup_factor(i, 4) for i in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert warmup_factor(0, 0) == 1
    plain, warm = small_learner("AdvEnt"), small_learner("AdvEnt", WARMUP=10)
    for iteration in (0, 4, 9, 30):
        a, b = plain.rates(iteration), warm.rates(iteration)
        assert b["lr_d"] == a["lr_d"]
        assert b["lr"] == pytest.approx(a["lr"] * min(1.0, (iteration + 1) / 10), rel=1e-12)


def test_layer_decay_by_hand():
    net = Backbone("mobilenetv3_small_050")
    scales = layer_scales(net, 0.5)
    blocks = len(net.blueprint.block_prefixes)
    assert scales["encoder.conv_stem.weight"] == scales["encoder.bn1.bias"] == 0.5 ** (blocks + 1)
    assert scales["encoder.blocks.0.0.conv_dw.weight"] == 0.5**blocks
    assert scales["encoder.blocks.1.0.conv_pw.weight"] == 0.5 ** (blocks - 1)
    assert max(scales.values()) == 0.5  # this backbone ends with its last block


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_layer_decay_reaches_the_groups(optimizer):
    net = Backbone("mobilenetv3_small_050")
    config = default_config().TRAIN
    config.OPTIMIZER, config.BACKBONE_UPDATES, config.LAYER_DECAY, config.HEAD_RATE = optimizer, "once", 0.5, 3.0
    groups = network_optimizer(net, config).param_groups
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert [scale[id(p)] for _, p in net.head] == [3.0]
    assert {name: scale[id(p)] for name, p in net.parameters} == layer_scales(net, 0.5)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"OPTIMIZER": "adamw"}, r"TRAIN\.BACKBONE_UPDATES: release repeats updates of SGD.*set it to once"),
        ({"LAYER_DECAY": 0.9}, r"TRAIN\.LAYER_DECAY: 0\.9.*no blocks in order.*set it to 1"),
    ],
)
def test_refusals_are_one_line(train, message):
    with pytest.raises(ConfigError, match=message) as error:
        small_learner("SourceOnly", **train)
    assert "\n" not in str(error.value)


def bytes_of(learner):
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    return file.getvalue()


def test_resumed_adamw_writes_the_same_bytes():
    """With dropout: the random state is stored beside the learner's state, as in resume.pth."""
    options = {"model": FUSION, "WARMUP": 3, "LEARNING_RATE": 1e-3, **ADAMW}
    saved, restored = (small_learner("DAF", "DeepLabv2_depth", **options) for _ in range(2))
    saved.update(0, *batches())
    state, rng = bytes_of(saved), torch.get_rng_state()
    saved.update(1, *batches())
    restored.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
    torch.set_rng_state(rng)
    restored.update(1, *batches())
    assert bytes_of(restored) == bytes_of(saved)


def test_nonfinite_step_leaves_adamw_unchanged():
    learner = small_learner("AdvEnt", WEIGHT_DECAY=0.1, **ADAMW)
    source, target = batches()
    poisoned = {**source, "image": source["image"] * math.inf}
    fresh = {name: p.detach().clone() for name, p in learner.net.named_parameters()}
    learner.update(0, poisoned, target)
    assert all(torch.equal(fresh[name], p) for name, p in learner.net.named_parameters())
    learner.update(1, source, target)
    before = copy.deepcopy(learner.state_dict())
    learner.update(2, poisoned, target)
    after = learner.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(before["net"].values(), after["net"].values(), strict=True))
    ours, theirs = (state["optimizers"]["net"]["state"] for state in (before, after))
    assert len(ours) > 20
    for index, moments in ours.items():
        assert moments["step"] == theirs[index]["step"] == 1
        assert all(torch.equal(value, theirs[index][name]) for name, value in moments.items())
    clean = small_learner("AdvEnt", WEIGHT_DECAY=0.1, **ADAMW)
    clean.update(1, source, target)
    assert all(
        torch.equal(a, b) for a, b in zip(clean.state_dict()["net"].values(), after["net"].values(), strict=True)
    )
