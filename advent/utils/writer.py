"""Files written by threads while the network works on: a bounded queue, errors as soon as they are known."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any

THREADS = 2
PENDING = 8  # writes that wait or run at most: what they hold stays in memory


class Writer:
    """A few writing threads, as a context manager.

    `submit` waits while `pending` writes are unfinished: slow storage slows the work down and fills no memory. It
    raises the error of any earlier write. The end of the block waits for all writes and raises their first error. An
    error in the block, or a signal, cancels what has not begun.
    """

    def __init__(self, threads: int = THREADS, pending: int = PENDING) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._limit = pending
        self._jobs: set[Future[Any]] = set()

    def submit(self, write: Callable[..., object], *arguments: Any) -> None:
        """Let a thread call `write(*arguments)`."""
        self._finish(below=self._limit)
        self._jobs.add(self._pool.submit(write, *arguments))

    def _finish(self, below: int) -> None:
        """Wait until fewer than `below` writes are unfinished. Raises the error of one that failed."""
        while True:
            done = {job for job in self._jobs if job.done()}
            self._jobs -= done
            for job in done:
                job.result()
            if len(self._jobs) < below:
                return
            wait(self._jobs, return_when=FIRST_COMPLETED)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is None:
                self._finish(below=1)
        finally:
            self._pool.shutdown(cancel_futures=True)
