"""Every method in float64: the device gives the CPU's gradients, weights and losses; so do several processes on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist

from helpers import ddp_equivalence
from helpers.ddp_equivalence import METHODS, largest_difference, loss_difference, make_learner
from helpers.device import DEVICE, needs_cuda
from helpers.process_pool import ProcessPool

EXACT = 1e-8  # float64: only the order of additions differs
STEPS = 2


def require_equal(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    for key in ("gradients", "weights", "statistics"):
        assert largest_difference(actual, expected, key) < EXACT, key
    assert loss_difference(actual, expected) < EXACT


@pytest.mark.parametrize("method", METHODS)
def test_an_iteration_gives_the_cpus_numbers(method: str) -> None:
    expected = ddp_equivalence.train(method, 2, steps=STEPS)
    require_equal(ddp_equivalence.train(method, 2, steps=STEPS, device=str(DEVICE)), expected)


@pytest.fixture(scope="module")
def two() -> Iterator[ProcessPool]:
    pool = ProcessPool(2)
    yield pool
    pool.close()


def train_over_gloo(method: str) -> dict[str, Any]:
    """One of two processes on one device. NCCL refuses to share a GPU, gloo does not."""
    dist.is_nccl_available = lambda: False
    return ddp_equivalence.in_process_group("train", method, 2, 1, False, STEPS, str(DEVICE))


@pytest.mark.parametrize("method", ["DAF", "SelfTraining"])
def test_two_processes_on_one_device(two: ProcessPool, method: str) -> None:
    expected = ddp_equivalence.train(method, 2, steps=STEPS)
    both = two.run(train_over_gloo, method)
    require_equal(both[0], expected)
    for name, weight in both[0]["weights"].items():
        assert torch.equal(weight, both[1]["weights"][name])


@needs_cuda
@pytest.mark.parametrize("method", ["DAF", "SelfTraining"])
def test_nccl_with_one_process(method: str) -> None:
    expected = ddp_equivalence.train(method, 2, 2, steps=STEPS)
    torch.cuda.set_device(DEVICE.index or 0)  # it refuses a device without an index
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        # Two micro-batches, because one batch of one process sends no message.
        require_equal(ddp_equivalence.train(method, 2, 2, steps=STEPS, device=str(DEVICE)), expected)
    finally:
        dist.destroy_process_group()


@needs_cuda
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_an_iteration_never_waits_for_the_device(method: str, amp: str) -> None:
    learner = make_learner(method, statistics=True, device=str(DEVICE), amp=amp)

    def step(iteration: int) -> None:
        source, target = ddp_equivalence.batches(method, iteration, 2)
        source, target = (ddp_equivalence.to_device(batch, str(DEVICE), amp) for batch in (source, target))
        torch.cuda.synchronize()
        if iteration:
            torch.cuda.set_sync_debug_mode("error")
        try:
            learner.update(iteration, source, None if method == "ISL" else target)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    for iteration in range(3):  # the first one makes the optimizers' states
        step(iteration)
