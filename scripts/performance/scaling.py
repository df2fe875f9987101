"""Data-parallel scaling from one process to two on the CPU with equal threads, and its communication share."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import torch

from advent.runtime import distributed
from daf.methods import register
from performance.networks import bench
from performance.timing import Row, Timing, row, timing_of

PROCESSES = 2


def scaling(device: torch.device, rounds: int, cfg: str = "ep2_low_dg", overrides: Sequence[str] = ()) -> list[Row]:
    """DAF iterations at batch 1 per domain: one process on half the cores, one on all, two on half each.

    Two processes process twice the images. Their communication time in a step includes waiting for the slower process;
    the message alone is measured after a barrier.
    """
    if device.type != "cpu":
        return [row("measured on the CPU only; use --device cpu")]
    cores = torch.get_num_threads()
    half = max(1, cores // PROCESSES)
    workers = [_Worker(cfg, overrides, None, half), *_pair(cfg, overrides, half)]
    alone, pair = workers[0], workers[1:]
    seconds: dict[str, list[float]] = {"half": [], "all": [], "two": [], "in step": [], "message": []}
    try:
        for turn in range(rounds + 1):
            times = {"half": alone.ask("step", half)[0], "all": alone.ask("step", cores)[0]}
            steps = _both(pair, "step", half)
            times |= {"two": max(step for step, _ in steps), "in step": min(spent for _, spent in steps)}
            times["message"] = max(spent for spent, _ in _both(pair, "message", half))
            for name, value in times.items():
                seconds[name] += [value] if turn else []
        size = pair[0].ask("size", half)[0]
    finally:
        for worker in workers:  # signal all workers before joining any: the pair must exit together
            worker.pipe.send(None)
        for worker in workers:
            worker.process.join()
    return _rows({name: timing_of(values) for name, values in seconds.items()}, half, cores, int(size))


def _rows(times: dict[str, Timing], half: int, cores: int, size: int) -> list[Row]:
    base, full, two = (times[name].seconds for name in ("half", "all", "two"))
    speed = {"per_second": 2 * PROCESSES / two, "times": PROCESSES * base / two}
    return [
        row(f"1 process, {half} threads", times["half"], per_second=2 / base, times=1.0),
        row(f"1 process, {cores} threads", times["all"], per_second=2 / full, times=base / full),
        row(f"{PROCESSES} processes, {half} threads each", times["two"], **speed),
        row("  of it averaging, waiting included", times["in step"], share=times["in step"].seconds / two),
        row("  the message alone", times["message"], share=times["message"].seconds / two, bytes=size),
    ]


def _pair(cfg: str, overrides: Sequence[str], threads: int) -> list[_Worker]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = [
        {"RANK": str(rank), "WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for rank in range(PROCESSES)
    ]
    return [_Worker(cfg, overrides, place, threads) for place in places]


def _both(pair: Sequence[_Worker], job: str, threads: int) -> list[tuple[float, float]]:
    for worker in pair:
        worker.pipe.send((job, threads))
    return [worker.pipe.recv() for worker in pair]


class _Worker:
    """A worker process with its own learner; replies (seconds, seconds of them in communication)."""

    def __init__(self, cfg: str, overrides: Sequence[str], place: dict[str, str] | None, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, cfg, list(overrides), place or {}, threads))
        self.process.start()

    def ask(self, job: str, threads: int) -> tuple[float, float]:
        self.pipe.send((job, threads))
        return self.pipe.recv()


def _serve(pipe: Any, cfg: str, overrides: Sequence[str], place: dict[str, str], threads: int) -> None:
    os.environ.update(place)
    torch.set_num_threads(threads)

    register()

    spent = 0.0
    original = distributed.all_reduce_mean

    def timed(*arguments: Any) -> Any:
        nonlocal spent
        began = time.perf_counter()
        result = original(*arguments)
        spent += time.perf_counter() - began
        return result

    distributed.all_reduce_mean = timed  # type: ignore[assignment]
    with distributed.process_group():
        setup = bench(cfg, torch.device("cpu"), overrides)
        optimizers = setup.learner.optimizers.values()
        parameters = [p for o in optimizers for group in o.param_groups for p in group["params"]]
        while (message := pipe.recv()) is not None:
            job, count = message
            torch.set_num_threads(count)
            if job == "size":
                pipe.send((float(sum(p.nbytes for p in parameters)), 0.0))
                continue
            gradients = [torch.zeros_like(p) for p in parameters] if job == "message" else []
            distributed.barrier()
            spent, began = 0.0, time.perf_counter()
            if job == "step":
                setup.step()
            else:
                original(gradients, parameters, PROCESSES)
            pipe.send((time.perf_counter() - began, spent))
