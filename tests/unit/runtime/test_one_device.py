"""Training keeps every tensor on the network's device, also what a method stores and what a resumed run restores.

No GPU is needed: the device is PyTorch's meta device, and a dispatch mode refuses operations that mix it with the CPU,
as CUDA does. Values are not computed.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from advent.config.loading import default_config
from advent.config.schema import Config
from advent.methods.registry import find_method, find_network
from advent.methods.steps import Method, supervised_step
from advent.model.deeplabv2 import initialise
from advent.model.encoder import ResNetEncoder
from advent.training.learner import Learner
from advent.utils.loss import cross_entropy_2d
from ida.intra import intra_method

META, CPU = torch.device("meta"), torch.device("cpu")
COPIES = ("_to_copy", "copy_")
CONCATENATIONS = ("cat", "stack")
DEPTH = {"ORDER": True, "MIX_LOSS": 0.1, "PRIOR": 0.3, "MASKED": 0.1}
MASKED = {"MASK_RATIO": 0.5, "MASK_BLOCK": 8, "START": 1}
# Method, network, SELF_TRAINING keys, DEPTH keys.
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "ISL": ("SourceOnly", "DeepLabv2_depth", {}, {}),
    "MinEnt": ("MinEnt", "DeepLabv2", {}, {}),
    "AdvEnt": ("AdvEnt", "DeepLabv2", {}, {}),
    "IDA": ("AdvEnt", "DeepLabv2_depth", {}, {}),
    "DADA": ("DADA", "DeepLabv2_depth_DADA", {}, {}),
    "DAF": ("DAF", "DeepLabv2_depth", {}, {}),
    "self-training": ("SelfTraining", "DeepLabv2", {"START": 1}, {}),
    "its teacher's own statistics": (
        "SelfTraining",
        "DeepLabv2_depth",
        {"TEACHER_STATISTICS": "target", "STATISTICS_PASSES": 1},
        {},
    ),
    "class-wise thresholds": ("SelfTraining", "DeepLabv2", {"CLASS_SHARE": 0.5, "WEIGHT": "class", "START": 1}, {}),
    "an adversary": ("SelfTraining", "DeepLabv2_depth", {"ADVERSARY": True, "START": 1}, {}),
    **{
        f"depth, {kind}": ("SelfTraining", "DeepLabv2_depth", MASKED, {**DEPTH, "TARGET": kind})
        for kind in ("predicted", "file", "mean", "permuted")
    },
}


class OneDevice(TorchDispatchMode):
    """Refuses operations that mix tensors of the device with others on the CPU.

    CUDA accepts numbers (0 dimensions) from the CPU, but not in a concatenation.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        places = {x.device.type for x in tensors if x.dim() or name in CONCATENATIONS}
        if name not in COPIES and len(places) > 1:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")
        return func(*args, **(kwargs or {}))


def config_of(case: str) -> Config:
    config = default_config()
    method, network, settings, depth = CASES[case]
    config.TRAIN.DA_METHOD, config.MODEL.NAME = method, network
    config.AUGMENT.CROP = [64, 48]
    for section, keys in ((config.SELF_TRAINING, settings), (config.DEPTH, depth)):
        for key, value in keys.items():
            setattr(section, key, value)
    return config


def learner_of(case: str, device: torch.device) -> Learner:
    config = config_of(case)
    entry = find_network(config)
    net = entry.build(config, ResNetEncoder((1, 1, 1, 1), 8))
    initialise(net, "he")
    method = intra_method(config) if case == "IDA" else find_method(config)
    if case == "ISL":
        method = Method("ISL", supervised_step, include_last_iter=True, multi_level=True)
    learner = Learner(net, method, entry.supervised, config.TRAIN, device)
    if device == META:
        for optimizer in learner.optimizers.values():
            _fuse(optimizer)
    return learner


def _fuse(optimizer: torch.optim.Optimizer) -> None:
    """As on CUDA, with the fused kernel's update left out: there is none for the meta device."""
    optimizer.defaults["fused"] = True
    for group in optimizer.param_groups:
        group["fused"] = True
    optimizer.step = lambda closure=None: None  # type: ignore[assignment, method-assign]


def batch(device: torch.device) -> dict[str, Tensor]:
    """As the loader gives it: everything on the device except the positions."""
    pixels = 2, 48, 64
    tensors = {
        "image": torch.randn(2, 3, 48, 64),
        "label": torch.randint(0, 16, pixels).to(torch.uint8),
        "depth": torch.rand(pixels) * 100 + 1,
        "depth_known": torch.rand(pixels) < 0.7,
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()} | {"position": torch.arange(2)}


def train(learner: Learner, iterations: range, micro: int, device: torch.device) -> None:
    for iteration in iterations:
        target = None if learner.method.name == "ISL" else [batch(device)] * micro
        learner.update(iteration, [batch(device)] * micro, target)


def places(state: Any) -> set[str]:
    """Devices of the tensors in a learner's state, counters of optimizers included."""
    return {x.device.type for x in tree_leaves(state) if isinstance(x, Tensor)}


def test_a_mix_of_devices_is_noticed() -> None:
    with OneDevice():
        there = torch.ones(3, device=META)
        there.copy_(torch.ones(3))
        there.mul_(torch.tensor(2.0))
        with pytest.raises(RuntimeError, match="same device"):
            there.add(torch.ones(3))
        with pytest.raises(RuntimeError, match="same device"):
            there.index_select(0, torch.tensor([1]))
        with pytest.raises(RuntimeError, match="same device"):
            torch.stack([there.sum(), torch.tensor(1.0)])


class Reductions(TorchDispatchMode):
    """Records the `reduction` of each cross entropy: 0 none, 1 mean, 2 sum."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "nll_loss2d_forward":
            self.seen.append(args[3])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("deterministic", "reduction"), [(True, 0), (False, 2)])
def test_a_deterministic_cross_entropy_is_summed_in_a_fixed_order(deterministic: bool, reduction: int) -> None:
    """CUDA's kernel adds with atomic operations when it reduces (torch.use_deterministic_algorithms: NLLLoss)."""
    logits, label = torch.zeros(1, 3, 2, 2, device=META), torch.zeros(1, 2, 2, dtype=torch.uint8, device=META)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        with Reductions() as mode:
            assert cross_entropy_2d(logits, label).shape == ()
    finally:
        torch.use_deterministic_algorithms(False)
    assert mode.seen == [reduction]


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize(
    ("case", "micro"), [*[(case, 1) for case in CASES], ("DAF", 2), ("class-wise thresholds", 2), ("depth, mean", 2)]
)
def test_training_and_resuming_stay_on_the_device(case: str, micro: int) -> None:
    """Self-training's first labels come in iteration 1, and the first average of the teacher in iteration 2."""
    stored, resumed = learner_of(case, CPU), learner_of(case, META)
    train(stored, range(1), 1, CPU)
    with OneDevice():
        train(learner_of(case, META), range(2), micro, META)
        resumed.load_state_dict(stored.state_dict())
        train(resumed, range(2, 3), micro, META)
    assert places(resumed.state_dict()) == {"meta"}
