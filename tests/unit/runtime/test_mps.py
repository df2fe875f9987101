"""MPS (Apple GPU) restrictions: no float64, `isin` on equal integer types only, no skipped steps in fused optimizers.

No Mac is needed: a dispatch mode on the CPU raises the errors of MPS. It cannot show that everything else works.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import daf.methods  # noqa: F401  (registers DAF)
from advent.dataset.loader import batch_to_device
from advent.errors import ConfigError
from advent.evaluation.evaluate import confusion_counts, upsample_argmax
from advent.evaluation.predictor import Predictor
from advent.model import precision
from advent.training.metric_buffer import MetricBuffer
from advent.training.optim import has_fused_kernels
from helpers.small_learner import batches, small_learner
from ida.pseudo_labels import pseudo_label
from ida.ranking import normaliser

MPS = torch.device("mps")


class Mps(TorchDispatchMode):
    """Treats every tensor as on the GPU, except those returned by `Tensor.cpu`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.host: list[torch.Tensor] = []
        monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: self._fetched(tensor))

    def _fetched(self, tensor: torch.Tensor) -> torch.Tensor:
        self.host.append(tensor.clone())
        return self.host[-1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        outputs = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        if inputs and all(any(x is known for known in self.host) for x in inputs):
            self.host += outputs
            return result
        if any(x.dtype == torch.float64 for x in (*inputs, *outputs)):
            raise TypeError(f"{func}: Cannot convert a MPS Tensor to float64 dtype")
        if func.overloadpacket.__name__ == "isin" and len({x.dtype for x in inputs}) > 1:
            raise RuntimeError(f"{func}: Expected elements.dtype() == test_elements.dtype()")
        return result


def test_simulated_mps_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with Mps(monkeypatch):
        value = torch.ones(3)
        assert value.cpu().double().dtype == torch.float64
        with pytest.raises(TypeError, match="float64"):
            value.double()
        with pytest.raises(RuntimeError, match="dtype"):
            torch.isin(torch.tensor([1]), value.to(torch.uint8))


@pytest.mark.parametrize(("method", "network"), [("AdvEnt", "DeepLabv2"), ("DAF", "DeepLabv2_depth")])
def test_iterations_and_their_log(method: str, network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, buffer = small_learner(method, network), MetricBuffer()
    source, target = batches()
    source["depth"] = torch.rand(2, 48, 64) * 100 + 1
    with Mps(monkeypatch):
        for iteration, scale in enumerate((1.0, math.nan)):
            values = learner.update(iteration, {**source, "image": source["image"] * scale}, target)
            buffer.add(iteration, values, ["source 1.png"])
        summary = buffer.fetch()
    assert math.isfinite(summary.means["seg"])
    assert [skipped.iteration for skipped in summary.skipped] == [1]


def test_prediction_scores_and_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_learner("SourceOnly").net
    with Mps(monkeypatch), torch.inference_mode():
        logits = Predictor([net], flip=True, scales=(1.0, 0.5))(batches()[0]["image"])
        ids = upsample_argmax(logits[0], (50, 70))
        counts = confusion_counts(torch.zeros(50, 70, dtype=torch.uint8), ids, 16)
        labels = pseudo_label(logits, 0.2)
        rare = [int(ids[0, 0]), 255 - int(ids[0, 0])]
        half = normaliser(ids, rare)
    assert counts[0].sum() == 50 * 70
    assert labels.shape[0] == 2
    assert half == 1.0  # one of two rare classes is present: (2 - 1) / 2 + 0.5


def test_mps_has_no_fused_optimizer() -> None:
    """PyTorch's fused kernels on MPS take `found_inf` and ignore it."""
    assert not has_fused_kernels([SimpleNamespace(device=MPS)])  # type: ignore[list-item]
    assert has_fused_kernels([SimpleNamespace(device=torch.device("cuda", 1))])  # type: ignore[list-item]


@pytest.mark.parametrize(("device", "asynchronous"), [("mps", False), ("cuda", True), ("cpu", False)])
def test_only_cuda_copies_are_asynchronous(device: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def to(tensor: torch.Tensor, place: torch.device, non_blocking: bool = False) -> torch.Tensor:
        seen.append((place.type, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    assert batch_to_device({"image": torch.ones(2), "name": ["a"]}, torch.device(device))["name"] == ["a"]
    assert seen == [(device, asynchronous)]


def test_full_precision_needs_no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch 2.4 has no autocast for MPS and raises even for a disabled one."""

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("unsupported scalarType")

    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda device: False)
    monkeypatch.setattr(torch, "autocast", refuse)
    with precision.autocast(MPS, None):
        pass
    with pytest.raises(ConfigError, match=r"TRAIN.AMP: PyTorch .* has no reduced precision on mps"):
        precision.autocast(MPS, torch.bfloat16)


def test_loss_scaling_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"TRAIN.AMP: fp16: .* use bf16 or 'off'"):
        precision.LossScale("fp16", MPS)
