"""Progress of long work: a bar on a terminal, otherwise a log line every 20 seconds."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from tqdm import tqdm

from advent.runtime import distributed

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 20.0

log = logging.getLogger(__name__)


class Progress:
    """Context manager that counts steps of a known total and shows rate and remaining time."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self._first, self._started = done, time.monotonic()
        self._next_line = self._started + SECONDS_BETWEEN_LINES
        terminal = sys.stderr.isatty() and distributed.is_main()
        self._bar = tqdm(total=total, initial=done, desc=what, dynamic_ncols=True) if terminal else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, note: str = "") -> None:
        """Count one step; `note` is shown beside the bar until the next note."""
        self.done += 1
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + SECONDS_BETWEEN_LINES
            rate = (self.done - self._first) / (now - self._started)
            left = (self.total - self.done) / rate
            log.info("%s %d/%d, %.2f/s, %d:%02d to go", self.what, self.done, self.total, rate, *divmod(int(left), 60))


def with_progress(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the items of an iterable and show progress."""
    with Progress(what, total) as progress:
        for item in items:
            yield item
            progress.step()


def in_threads(work: Callable[[int], T], indices: Sequence[int], what: str, threads: int = 0) -> dict[int, T]:
    """index -> result of `work` on every index, in threads, with progress; the first error stops it.

    `threads`: 0 for one per core.
    """
    done: dict[int, T] = {}
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        with Progress(what, len(indices)) as progress:
            jobs = {pool.submit(work, index): index for index in indices}
            for job in as_completed(jobs):
                done[jobs[job]] = job.result()
                progress.step()
    finally:
        pool.shutdown(cancel_futures=True)
    return done
