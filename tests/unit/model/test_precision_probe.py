"""TRAIN.AMP: auto: the measured choice, its safety check, its traces, and the choice per device."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advent.config.schema import Precision
from advent.model import precision_probe
from advent.model.precision_probe import Passes, fastest_precision
from helpers.small_learner import small_learner

CPU = torch.device("cpu")
TRAINING, SCORING = Passes(2, (64, 48), trains=True), Passes(2, (64, 48), trains=False)


def network() -> Any:
    return small_learner("DAF", "DeepLabv2_depth").net


def clock(monkeypatch: pytest.MonkeyPatch, seconds_of: dict[torch.dtype | None, float]) -> None:
    """Every pass takes these seconds; its results are real."""
    real = precision_probe._timed

    def timed(net: nn.Module, images: Tensor, dtype: torch.dtype | None, trains: bool) -> tuple[float, bool]:
        return seconds_of[dtype], real(net, images, dtype, trains)[1]

    monkeypatch.setattr(precision_probe, "_timed", timed)


@pytest.mark.parametrize("passes", [TRAINING, SCORING], ids=["training", "scoring"])
@pytest.mark.parametrize(("reduced", "chosen"), [(0.89, "bf16"), (0.9, "bf16"), (0.91, "off"), (2.0, "off")])
def test_bf16_must_save_a_tenth_of_the_time(
    passes: Passes, reduced: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, {None: 1.0, torch.bfloat16: reduced})
    precision = fastest_precision(network(), CPU, passes)
    assert precision.format == chosen
    assert f"bf16 {reduced:.3g} s, fp32 1 s" in precision.reason
    assert str(passes) in precision.reason


def test_a_processor_without_bf16_is_not_measured_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, {None: 1.0, torch.bfloat16: 100.0})
    precision = fastest_precision(network(), CPU, TRAINING)
    assert precision == Precision("off", f"bf16 takes 100 times as long as fp32; {TRAINING}")


@pytest.mark.parametrize("passes", [TRAINING, SCORING], ids=["training", "scoring"])
@pytest.mark.parametrize("train_mode", [True, False])
def test_the_measurement_leaves_no_trace(passes: Passes, train_mode: bool) -> None:
    net = network().train(train_mode)
    net.layer1.eval()  # as a network with frozen parts
    before = copy.deepcopy(net.state_dict())
    modes = [part.training for part in net.modules()]
    momenta = [getattr(part, "momentum", None) for part in net.modules()]
    state = torch.get_rng_state()
    fastest_precision(net, CPU, passes)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert [part.training for part in net.modules()] == modes
    assert [getattr(part, "momentum", None) for part in net.modules()] == momenta
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.is_autocast_enabled("cpu")


class FaultyGradient(torch.autograd.Function):
    """The identity, whose gradient is noise in bfloat16 alone: what oneDNN does to dilated depthwise convolutions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        noise = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(5)).to(gradient)
        return noise * gradient.abs().mean() if gradient.dtype == torch.bfloat16 else gradient


def test_one_layer_with_wrong_gradients_in_bf16_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, {None: 1.0, torch.bfloat16: 0.5})
    net = network()
    assert fastest_precision(net, CPU, TRAINING).format == "bf16"
    net.layer3[0].conv2.register_forward_hook(lambda module, inputs, output: FaultyGradient.apply(output))
    precision = fastest_precision(net, CPU, TRAINING)
    assert precision.format == "off"
    assert precision.reason.startswith("bf16 is wrong here: Conv2d(")
    assert fastest_precision(net, CPU, SCORING).format == "bf16"  # the outputs are right


def test_a_deep_random_network_is_not_taken_for_a_faulty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norms amplify rounding: the gradients of its encoder have nothing in common in the two formats."""
    clock(monkeypatch, {None: 1.0, torch.bfloat16: 0.5})
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(15)))
    wrapped = nn.ModuleList([net])
    wrapped.forward = lambda x: (None, net(x))  # type: ignore[method-assign]
    assert fastest_precision(wrapped, CPU, TRAINING).format == "bf16"


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_outputs_in_bf16_that_are_not_finite_are_noticed(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, {None: 1.0, torch.bfloat16: 0.5})
    net = network()
    net.layer3.register_forward_hook(
        lambda module, inputs, output: output * value if output.dtype == torch.bfloat16 else output
    )
    precision = fastest_precision(net, CPU, SCORING)
    assert precision == Precision("off", "bf16 is wrong here: infinite or not a number")


def test_a_network_that_bf16_does_not_run_takes_fp32() -> None:
    net = network()

    def refuse(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.dtype == torch.bfloat16:
            raise NotImplementedError('"a kernel" not implemented for BFloat16')

    net.layer3.register_forward_hook(refuse)
    precision = fastest_precision(net, CPU, TRAINING)
    assert precision == Precision("off", 'bf16 does not run here: "a kernel" not implemented for BFloat16')


@pytest.mark.parametrize(
    ("size_wh", "reduced"),
    [
        ((320, 240), (320, 240)),
        ((64, 48), (64, 48)),
        ((1280, 760), (352, 192)),
        ((1024, 1024), (256, 256)),
        ((4096, 64), (2208, 32)),
    ],
)
def test_measured_images_have_at_most_320_x_240_pixels(size_wh: tuple[int, int], reduced: tuple[int, int]) -> None:
    passes = Passes(3, size_wh, trains=True).reduced()
    assert tuple(passes.size_wh) == reduced
    assert passes.images == 3
    assert reduced[0] * reduced[1] <= 320 * 240


# --- other devices


@pytest.mark.parametrize(("has", "chosen"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_takes_bf16_only_if_it_has_it(has: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return has

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    assert fastest_precision(nn.Identity(), torch.device("cuda", 0), TRAINING).format == chosen
    assert asked == [False]


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_pytorch_2_4_does_not_know_emulation(
    capability: tuple[int, int], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)  # a card of 7.5 emulates it
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fastest_precision(nn.Identity(), torch.device("cuda", 0), TRAINING).format == chosen


def test_mps_stays_in_fp32() -> None:
    assert fastest_precision(nn.Identity(), torch.device("mps"), TRAINING).format == "off"
