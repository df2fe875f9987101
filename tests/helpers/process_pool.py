"""Pool of processes with torchrun's environment, kept alive over several tests because imports take seconds."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class ProcessPool:
    """`count` spawned processes with one thread each; `run` calls a function on all ranks, `alone` on one process."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=False)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return values by rank; `function` opens the process group (a stage, or `distributed.process_group`)."""
        port = free_port()
        for rank, pipe in enumerate(self.pipes):
            environment = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": len(self.pipes),
                "LOCAL_WORLD_SIZE": len(self.pipes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            pipe.send((function, arguments, {key: str(value) for key, value in environment.items()}))
        return [_answer(pipe) for pipe in self.pipes]

    def alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return value of the first process, called without torchrun's environment."""
        self.pipes[0].send((function, arguments, {}))
        return _answer(self.pipes[0])

    def close(self) -> None:
        """Stop the processes."""
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self.processes:
            process.join(20)
            if process.is_alive():
                process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answer(pipe: Any) -> Any:
    if not pipe.poll(1800):
        raise TimeoutError("a process does not answer")
    good, value = pickle.loads(pipe.recv_bytes())
    if not good:
        raise AssertionError(value)
    return value


def _serve(pipe: Any) -> None:
    import traceback

    import torch

    torch.set_num_threads(1)
    while (job := pipe.recv()) is not None:
        function, arguments, environment = job
        os.environ.update(environment)
        try:
            answer = True, function(*arguments)
        except BaseException:
            answer = False, traceback.format_exc()
        pipe.send_bytes(pickle.dumps(answer))  # as bytes: torch would send every tensor as an open file
        for key in environment:
            del os.environ[key]


def run_script(name: str, argv: list[str]) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a script called in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = __import__(name).main(argv)
    return code, out.getvalue(), err.getvalue()


def torchrun(script: str, argv: list[str], processes: int = 2, *flags: str, **environment: Any) -> subprocess.Popen:
    """Start a script under the real torchrun with `processes` ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *flags]
    return subprocess.Popen(
        [*command, script, *argv],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
