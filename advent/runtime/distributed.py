"""More than one process: who this one is, and what all of them add up or decide together.

`torchrun` starts the processes and tells each its rank and where they meet; `torch.distributed` carries the messages
(gloo between CPUs, NCCL between GPUs). Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
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
# How long a process waits for another one that neither answers nor has ended (a machine that lost its power). One that
# ends is noticed at once. Long, since the slowest machine's share of a ranking may come minutes after the fastest's.
TIMEOUT = timedelta(minutes=30)
SECONDS_FOR_TORCHRUN = 10.0  # to notice who died first, before the others end too
ALIGNED = 16  # elements: where a tensor begins in a message, so that vectorised kernels can work on it in place


class LostPeer(Exception):
    """Another process of the run ended or stopped answering; `exit_code` is this one's."""

    exit_code = 1


class _World:
    store: Any = None  # outlives the processes: torchrun holds it
    launcher: str | None = None  # `launcher_id`, found once per `process_group`
    single = False  # what `set_single` said


def is_distributed_launch() -> bool:
    """Whether this process was started as one of several, by torchrun or another launcher that sets its variables."""
    names = {"RANK", "MASTER_ADDR", "MASTER_PORT"}
    return not _World.single and int(os.environ.get("WORLD_SIZE", 1)) > 1 and names <= os.environ.keys()


def set_single(single: bool) -> None:
    """Let a program that works in one process (`single`) ignore WORLD_SIZE and RANK: clusters set them for each node.

    But not where LOCAL_RANK is set, too: a launcher such as torchrun has then started it several times.
    """
    _World.single = single and "LOCAL_RANK" not in os.environ


def launched_rank() -> int:
    """The rank that this process was started as, also before it has met the others."""
    return int(os.environ["RANK"]) if is_distributed_launch() else 0


def under_torchrun() -> bool:
    """Whether torchrun started this process, alone or as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launcher() -> str | None:
    """The torchrun start above this process, once `process_group`; equal before and after a restart. None without one."""
    return _World.launcher


@contextmanager
def process_group() -> Iterator[None]:
    """Meet the other processes, and leave them: together when the work inside has succeeded, else at once.

    The others notice that this one is gone. Raises ConfigError when they cannot be met.
    """
    with _rendezvous():
        _World.launcher = launcher_id() if under_torchrun() else None
    if not is_distributed_launch():
        yield
        return
    # Its functions take the group of their import for a default: imported later (the first optimizer does), it would
    # keep the group alive, whose threads abort a process that ends.
    importlib.import_module("torch.distributed.nn.functional")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    if not under_torchrun():
        log.info("WORLD_SIZE is %s: waiting for the other processes; unset it to work alone", os.environ["WORLD_SIZE"])
    with _rendezvous():
        found, rank_, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
        _World.store = fresh_store(found, rank_, size, TIMEOUT)
        dist.init_process_group(backend, store=_World.store, rank=rank_, world_size=size, timeout=TIMEOUT)
    try:
        yield
        barrier()
    finally:
        with suppress(RuntimeError):
            dist.destroy_process_group()


@contextmanager
def _rendezvous() -> Iterator[None]:
    """Turn a rendezvous that fails into a user's error."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"the processes do not meet at {place} ({first_line(error)}); check torchrun's --nnodes "
            "and --rdzv-endpoint, and that the machines reach each other; without torchrun, unset WORLD_SIZE to work "
            "alone"
        ) from None


def rank() -> int:
    """This process's number among all, from 0."""
    return dist.get_rank() if _is_distributed() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if _is_distributed() else 1


def is_main() -> bool:
    """Whether this process is the one that writes what is shared."""
    return rank() == 0


def main_only(function: Callable[P, None]) -> Callable[P, None]:
    """Let only rank 0 do it; on the others the call does nothing."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if is_main():
            function(*args, **kwargs)

    return call


def shard(items: Sequence[T]) -> Sequence[T]:
    """This process's part of a list: every item belongs to exactly one process, whatever their numbers."""
    return items[rank() :: world_size()]


def barrier() -> None:
    """Wait until all processes are here."""
    all_reduce_max_int(0)


def all_reduce_max_int(value: int) -> int:
    """The highest of all processes' values."""
    if not _is_distributed():
        return value
    return int(all_reduce_max(torch.tensor(value)))


def all_reduce_max(value: Tensor) -> Tensor:
    """The elementwise maximum of all processes' tensors; NaN where one of them has NaN."""
    if not _is_distributed():
        return value
    if not value.is_floating_point():
        found = value.clone()
        _all_reduce(found, dist.ReduceOp.MAX)
        return found
    # A maximum may lose a NaN on its way, and with it the reason to refuse the iteration: it travels as a flag.
    spoilt = value.isnan()
    both = torch.stack([value.masked_fill(spoilt, -torch.inf), spoilt.to(value.dtype)])
    _all_reduce(both, dist.ReduceOp.MAX)
    return both[0].masked_fill(both[1] > 0, torch.nan)


def all_reduce_sum(value: Tensor) -> Tensor:
    """The sum of all processes' tensors, a new one; integers stay exact."""
    if not _is_distributed():
        return value
    total = value.clone()
    _all_reduce(total, dist.ReduceOp.SUM)
    return total


@torch.no_grad()
def all_reduce_mean(tensors: Sequence[Tensor], like: Sequence[Tensor], count: int) -> list[Tensor]:
    """Every tensor summed over all processes and divided by `count`, all in one message.

    The results are new and lie in memory as `like` does (fused optimizers want gradients laid out as their
    parameters), in the first tensor's precision.
    """
    if not _is_distributed():
        return [tensor / count for tensor in tensors]
    offsets, end = [], 0
    for tensor in tensors:
        offsets.append(end)
        end += -(-tensor.numel() // ALIGNED) * ALIGNED
    message = tensors[0].new_zeros(end)
    views = [message.as_strided(one.shape, one.stride(), at) for one, at in zip(like, offsets, strict=True)]
    for view, tensor in zip(views, tensors, strict=True):
        view.copy_(tensor)
    _all_reduce(message, dist.ReduceOp.SUM)
    message.div_(count)
    return views


@torch.no_grad()
def broadcast(tensors: Sequence[Tensor]) -> None:
    """Give every process rank 0's values."""
    if not _is_distributed():
        return
    for tensor in tensors:
        values = _reachable(tensor.detach()).contiguous()
        with _peer_errors():
            dist.broadcast(values, src=0)
        tensor.copy_(values)


def broadcast_object(decide: Callable[[], T]) -> T:
    """What rank 0 finds; nobody else looks. For what depends on files, which others may see later."""
    if not _is_distributed():
        return decide()
    found: list[Any] = [decide() if is_main() else None]
    with _peer_errors():
        dist.broadcast_object_list(found, src=0, device=torch.device("cpu"))
    return found[0]


def all_gather(value: T) -> list[T]:
    """All processes' values, by rank."""
    if not _is_distributed():
        return [value]
    found: list[Any] = [None] * world_size()
    with _peer_errors():
        dist.all_gather_object(found, value)
    return found


def require_same(**facts: str) -> None:
    """Refuse to go on where machines were started with different things. Raises ConfigError naming which."""
    everywhere = all_gather(facts)
    for name in facts:
        if len({one[name] for one in everywhere}) > 1:
            raise ConfigError(
                f"the {name} differs between the processes; start every machine with the same command, on the same data"
            )


def interleave(shares: Sequence[Sequence[T]]) -> list[T]:
    """The list whose `shard`s these are, by rank."""
    length = max(map(len, shares), default=0)
    return [one[at] for at in range(length) for one in shares if at < len(one)]


def is_error_reporter() -> bool:
    """Whether this process is the one to say why the run ended: the first that asks."""
    if not is_distributed_launch():
        return True
    try:
        return _World.store.add("said", 1) == 1
    except (RuntimeError, AttributeError):  # the store is gone, or was never reached
        return launched_rank() == 0


def wait_for_torchrun() -> None:
    """Having lost a peer, wait a moment for torchrun to end this process: so it sees who was first to die."""
    until = time.monotonic() + SECONDS_FOR_TORCHRUN
    while time.monotonic() < until and not signals.is_requested():
        time.sleep(0.05)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Around a message: when it fails, a peer is gone."""
    try:
        yield
    except RuntimeError as error:
        why = first_line(error)
        raise LostPeer(f"another process of this run ended or does not answer ({why})") from error


def _reachable(tensor: Tensor) -> Tensor:
    """The tensor where messages can take it from: no backend reaches an Apple GPU."""
    return tensor if tensor.device.type in ("cpu", "cuda") else tensor.cpu()


def _all_reduce(tensor: Tensor, operation: Any) -> None:
    values = _reachable(tensor)
    with _peer_errors():
        dist.all_reduce(values, op=operation)
    if values is not tensor:
        tensor.copy_(values)
