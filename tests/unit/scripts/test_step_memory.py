"""Counted memory: closed forms, freed tensors, CUDA's autocast rules, and a step with and without data."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from advent.config.loading import load_config
from performance.memory import META, CudaAutocast, LiveBytes, step_memory

CPU = torch.device("cpu")
MIB = 2**20
SMALL = [
    "TRAIN.RESTORE_FROM=null",
    "MODEL.ENCODER_WEIGHTS=null",
    "MODEL.LAYERS=[1,1,1,1]",
    "MODEL.WIDTH=16",
    "TRAIN.INPUT_SIZE_SOURCE=[160,96]",
    "TRAIN.INPUT_SIZE_TARGET=[160,96]",
]


def test_live_tensors_are_counted_once_and_until_they_are_freed() -> None:
    with LiveBytes(CPU) as live:
        kept = [torch.ones(MIB // 4) for _ in range(3)]
        views = [tensor.view(2, -1) for tensor in kept]
        assert live.now == 3 * MIB
        del kept
        assert live.now == 3 * MIB  # the views hold the storages
        del views
        assert live.now == 0
        torch.ones(1)
    assert (live.now, live.peak) == (0, 3 * MIB)


def test_saved_activations_are_alive_until_the_backward_pass() -> None:
    with LiveBytes(META) as live:
        x = torch.zeros(MIB // 4, device=META, requires_grad=True)
        loss = x.exp().exp().exp().sum()  # each result is saved for its own gradient
        assert 4 * MIB <= live.now <= 4 * MIB + 1024
        loss.backward()
        del loss
        assert live.now == 2 * MIB  # x and its gradient
    assert live.peak > 4 * MIB


def test_autocast_rules() -> None:
    rules, weight = CudaAutocast(), nn.Parameter(torch.ones(4, 4))
    x = torch.ones(2, 4)
    with rules, rules.autocast(CPU, torch.bfloat16):
        product = functional.linear(x, weight)
        assert product.dtype == torch.bfloat16
        assert functional.layer_norm(product, (4,)).dtype == torch.float32
        assert functional.gelu(product).dtype == torch.bfloat16
        with rules.autocast(CPU, None):
            assert functional.linear(x, weight).dtype == torch.float32
    with rules:
        assert functional.linear(x, weight).dtype == torch.float32


@pytest.mark.parametrize("method", ["DAF", "SelfTraining"])
def test_a_step_without_data_counts_what_a_real_step_holds(method: str) -> None:
    config = load_config("ep1:daf", [*SMALL, f"TRAIN.DA_METHOD={method}"])
    counted, real = step_memory(config), step_memory(config, CPU)
    assert counted.held == pytest.approx(real.held, rel=0.001)
    assert counted.peak == pytest.approx(real.peak, rel=0.05)
    assert counted.peak > counted.held
