"""Distributed runs: process group, rank and world size, collective operations, error reporting.

`torchrun` starts the processes and sets each one's rank and rendezvous address. `torch.distributed` sends the messages
(gloo between CPUs, NCCL between GPUs). In a single process no messages are sent.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from advent.errors import ConfigError, first_line
from advent.runtime import signals
from advent.runtime.rendezvous import fresh_store, launcher_id

log = logging.getLogger(__name__)
T = TypeVar("T")
P = ParamSpec("P")
# Time that a process waits for a peer that neither answers nor has ended (a machine without power). A peer that ends
# is noticed at once. The timeout is long because the slowest machine may finish its shard of a ranking minutes later.
TIMEOUT = timedelta(minutes=30)
SECONDS_FOR_TORCHRUN = 10.0  # time to detect which process failed first, before the others exit
SECONDS_FOR_STORE = 5.0  # time for torchrun's store to answer which process reports the error
ALIGNED = 16  # elements: alignment of a tensor in a message, so that vectorised kernels can use it in place


class LostPeer(Exception):
    """Another process of the run ended or stopped responding; `exit_code`: exit code of this process."""

    exit_code = 1


class _World:
    store: Any = None  # held by torchrun, so it outlives the processes
    launcher: str | None = None  # `launcher_id`, determined once per `process_group`
    single = False  # set by `set_single`


def is_distributed_launch() -> bool:
    """Whether this process was started as one of several, by torchrun or another launcher that sets its variables."""
    names = {"RANK", "MASTER_ADDR", "MASTER_PORT"}
    return not _World.single and int(os.environ.get("WORLD_SIZE", 1)) > 1 and names <= os.environ.keys()


def set_single(single: bool) -> None:
    """Let a single-process program (`single`) ignore WORLD_SIZE and RANK, which clusters set on each node.

    They are not ignored if LOCAL_RANK is set too: then a launcher such as torchrun has started several processes.
    """
    _World.single = single and "LOCAL_RANK" not in os.environ


def launched_rank() -> int:
    """The rank that the launcher gave this process, available before `process_group`."""
    return int(os.environ["RANK"]) if is_distributed_launch() else 0


def under_torchrun() -> bool:
    """Whether torchrun started this process, alone or as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launcher() -> str | None:
    """Id of this process's torchrun launch, set by `process_group`, stable over restarts; None without torchrun."""
    return _World.launcher


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group; leave it together with the others on success, or at once on an error.

    The other processes notice when this one leaves. Raises ConfigError if the rendezvous fails.
    """
    with _rendezvous():
        _World.launcher = launcher_id() if under_torchrun() else None
    if not is_distributed_launch():
        yield
        return
    # Imported before the group exists: its functions store the current group as their default. A later import (by the
    # first optimizer) would keep the group alive, and the group's threads abort an exiting process.
    importlib.import_module("torch.distributed.nn.functional")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    if not under_torchrun():
        log.info(
            "WORLD_SIZE is %s: waiting for the other processes; unset it to run a single process",
            os.environ["WORLD_SIZE"],
        )
    with _rendezvous():
        store, rank_, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
        _World.store = fresh_store(store, rank_, size, TIMEOUT)
        dist.init_process_group(backend, store=_World.store, rank=rank_, world_size=size, timeout=TIMEOUT)
    try:
        yield
        barrier()
    finally:
        with suppress(RuntimeError):
            dist.destroy_process_group()


@contextmanager
def _rendezvous() -> Iterator[None]:
    """Turn a failed rendezvous into a ConfigError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"the processes cannot connect at {place} ({first_line(error)}); check torchrun's --nnodes "
            "and --rdzv-endpoint, and that the machines reach each other; without torchrun, unset WORLD_SIZE to run "
            "a single process"
        ) from None


def rank() -> int:
    """Rank of this process, from 0; 0 without a process group."""
    return dist.get_rank() if _is_distributed() else 0


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if _is_distributed() else 1


def is_main() -> bool:
    """Whether this is rank 0, which writes shared files."""
    return rank() == 0


def main_only(function: Callable[P, None]) -> Callable[P, None]:
    """Decorator: run the function on rank 0 only; on other ranks the call does nothing."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if is_main():
            function(*args, **kwargs)

    return call


def shard(items: Sequence[T]) -> Sequence[T]:
    """This process's items of a list; every item belongs to exactly one process."""
    return items[rank() :: world_size()]


def barrier() -> None:
    """Wait until all processes reach this call."""
    all_reduce_max_int(0)


def all_reduce_max_int(value: int) -> int:
    """The maximum of all processes' integers."""
    if not _is_distributed():
        return value
    return int(all_reduce_max(torch.tensor(value)))


def all_reduce_max(value: Tensor) -> Tensor:
    """Elementwise maximum of all processes' tensors; NaN where any of them is NaN."""
    if not _is_distributed():
        return value
    if not value.is_floating_point():
        maximum = value.clone()
        _all_reduce(maximum, dist.ReduceOp.MAX)
        return maximum
    # A MAX reduction may lose a NaN, and with it the reason to skip the iteration, so NaNs are sent as a flag.
    is_nan = value.isnan()
    stacked = torch.stack([value.masked_fill(is_nan, -torch.inf), is_nan.to(value.dtype)])
    _all_reduce(stacked, dist.ReduceOp.MAX)
    return stacked[0].masked_fill(stacked[1] > 0, torch.nan)


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sum of all processes' tensors, as a new tensor; integers stay exact."""
    if not _is_distributed():
        return value
    total = value.clone()
    _all_reduce(total, dist.ReduceOp.SUM)
    return total


@torch.no_grad()
def all_reduce_mean(tensors: Sequence[Tensor], like: Sequence[Tensor], count: int) -> list[Tensor]:
    """Sum every tensor over all processes and divide by `count`, in one message.

    The results are new tensors with the memory layout of `like` (fused optimizers require gradients with the layout of
    their parameters) and, with several processes, the dtype of the first tensor.
    """
    if not _is_distributed():
        return [tensor / count for tensor in tensors]
    offsets, end = [], 0
    for tensor in tensors:
        offsets.append(end)
        end += -(-tensor.numel() // ALIGNED) * ALIGNED
    message = tensors[0].new_zeros(end)
    layouts = zip(like, offsets, strict=True)
    views = [message.as_strided(tensor.shape, tensor.stride(), offset) for tensor, offset in layouts]
    for view, tensor in zip(views, tensors, strict=True):
        view.copy_(tensor)
    _all_reduce(message, dist.ReduceOp.SUM)
    message.div_(count)
    return views


@torch.no_grad()
def broadcast(tensors: Sequence[Tensor]) -> None:
    """Copy rank 0's values into the tensors of every process."""
    if not _is_distributed():
        return
    for tensor in tensors:
        values = _reachable(tensor.detach()).contiguous()
        with _peer_errors():
            dist.broadcast(values, src=0)
        tensor.copy_(values)


def broadcast_object(decide: Callable[[], T]) -> T:
    """The result of `decide` on rank 0, sent to every process. For decisions on files, which others may see later."""
    if not _is_distributed():
        return decide()
    objects: list[Any] = [decide() if is_main() else None]
    with _peer_errors():
        dist.broadcast_object_list(objects, src=0, device=torch.device("cpu"))
    return objects[0]


def all_gather(value: T) -> list[T]:
    """The values of all processes, ordered by rank."""
    if not _is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    with _peer_errors():
        dist.all_gather_object(values, value)
    return values


def require_same(**facts: str) -> None:
    """Raise ConfigError, naming the fact, if any of `facts` differs between the processes."""
    everywhere = all_gather(facts)
    for name in facts:
        if len({values[name] for values in everywhere}) > 1:
            raise ConfigError(
                f"the {name} differs between the processes; start every machine with the same command and the same data"
            )


def interleave(shares: Sequence[Sequence[T]]) -> list[T]:
    """Inverse of `shard`: the full list from the shards, ordered by rank."""
    length = max(map(len, shares), default=0)
    return [share[index] for index in range(length) for share in shares if index < len(share)]


def is_error_reporter() -> bool:
    """Whether this process should print why the run ended: true for the first process that asks.

    If the store cannot be reached (the machine that holds it died), one process of each machine prints.
    """
    if not is_distributed_launch():
        return True
    answers: list[bool] = []

    def ask() -> None:
        with suppress(RuntimeError, AttributeError):  # the store is gone or was never connected
            answers.append(_World.store.add("said", 1) == 1)

    # In a thread, because `add` has no timeout: it waits for a machine that disappeared until TCP gives up.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS_FOR_STORE)
    return answers[0] if answers else os.environ.get("LOCAL_RANK", "0") == "0"


def wait_for_torchrun() -> None:
    """After a lost peer, wait for torchrun to end this process, so that it reports the process that failed first."""
    until = time.monotonic() + SECONDS_FOR_TORCHRUN
    while time.monotonic() < until and not signals.is_requested():
        time.sleep(0.05)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Turn a failed collective operation into LostPeer."""
    try:
        yield
    except RuntimeError as error:
        why = first_line(error)
        raise LostPeer(f"another process of this run ended or does not respond ({why})") from error


def _reachable(tensor: Tensor) -> Tensor:
    """The tensor on a device that a backend supports: none supports an Apple GPU, so that is copied to the CPU."""
    return tensor if tensor.device.type in ("cpu", "cuda") else tensor.cpu()


def _all_reduce(tensor: Tensor, operation: Any) -> None:
    values = _reachable(tensor)
    with _peer_errors():
        dist.all_reduce(values, op=operation)
    if values is not tensor:
        tensor.copy_(values)
