"""Depthwise convolutions on the CPU: the interleaved form of dilated ones, and float32 under autocast."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from advent.model.depthwise import DilatedDepthwiseConv2d
from advent.model.heads import FusionHead
from advent.model.precision import autocast
from advent.runtime.memory import keep_freed_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize("dilation", [2, 3, 6, 9])
@pytest.mark.parametrize("size_hw", [(12, 18), (13, 17), (4, 5)])
def test_the_interleaved_form_is_the_dilated_convolution(dilation: int, size_hw: tuple[int, int]) -> None:
    """Outputs and both gradients equal those of PyTorch's dilated convolution, also where d is larger than the map."""
    torch.manual_seed(0)
    ours = DilatedDepthwiseConv2d(6, dilation).double()
    x = torch.randn(2, 6, *size_hw, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    results = [
        ours(x),
        functional.conv2d(x, ours.weight, padding=dilation, dilation=dilation, groups=6),
    ]
    weights = torch.randn_like(results[0])
    assert results[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(*results)
    gradients = [torch.autograd.grad((result * weights).sum(), (x, ours.weight)) for result in results]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), results[0].detach())


def test_a_fusion_head_keeps_its_parameter_names() -> None:
    """Checkpoints from before the interleaved form still fit."""
    names = FusionHead((4, 4, 4, 4), 3, (4, 8), (1, 3)).state_dict()
    assert names["aspp.1.0.0.weight"].shape == (16, 1, 3, 3)
    assert "aspp.1.0.1.running_mean" in names


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": 3, "padding": 3},
        {"kernel_size": 5, "padding": 2},
        {"stride": 2},
        {"padding": 1},
        {"padding": "same"},
    ],
)
def test_gradients_of_depthwise_convolutions_are_right_under_autocast(options: dict[str, object]) -> None:
    """PyTorch 2.14's own bfloat16 weight gradient of dilated ones is wrong by more than its size on AVX512-BF16."""
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, options.pop("kernel_size", 3), groups=32, **options).to(  # type: ignore[arg-type]
        memory_format=torch.channels_last
    )
    x = torch.randn(2, 32, 30, 40).to(memory_format=torch.channels_last)

    def gradient(dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
        with autocast(CPU, dtype):
            output = conv(x)
        return output, torch.autograd.grad(output.float().square().mean(), conv.weight)[0]

    (plain, exact), (reduced, ours) = gradient(None), gradient(torch.bfloat16)
    assert (plain.dtype, reduced.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(ours, exact, rtol=0.05, atol=0.02 * float(exact.abs().max()))


COMPILERS = [
    "aot_eager",
    pytest.param(
        "inductor",
        marks=[pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")],
    ),
]


@pytest.mark.parametrize("backend", COMPILERS)
def test_a_compiled_network_has_right_gradients_under_autocast(backend: str) -> None:
    """TRAIN.COMPILE with TRAIN.AMP: bf16: the compiler must follow the mode that keeps depthwise ones in float32."""
    torch.manual_seed(0)
    depthwise = [DilatedDepthwiseConv2d(16, 3), nn.Conv2d(16, 16, 5, padding=2, groups=16)]
    net = nn.Sequential(nn.Conv2d(3, 16, 3), *depthwise, nn.Conv2d(16, 4, 1)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 20, 24).to(memory_format=torch.channels_last)
    compiled = torch.compile(net, backend=backend)

    def gradients(call: Callable[[Tensor], Tensor], dtype: torch.dtype | None) -> tuple[Tensor, ...]:
        with autocast(CPU, dtype):
            output = call(x)
        assert output.dtype == (dtype or torch.float32)
        return torch.autograd.grad(output.float().square().mean(), list(net.parameters()))

    for ours, exact in zip(gradients(compiled, torch.bfloat16), gradients(net, None), strict=True):
        torch.testing.assert_close(ours, exact, rtol=0.05, atol=0.02 * float(exact.abs().max()))


def test_other_convolutions_stay_reduced_under_autocast() -> None:
    """The mode must not switch autocast off for the whole network."""
    with autocast(CPU, torch.bfloat16):
        assert nn.Conv2d(4, 4, 3)(torch.randn(1, 4, 8, 8)).dtype == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


def test_settings_of_the_user_for_malloc_take_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who sets MALLOC_ARENA_MAX or another variable of malloc has a reason."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
