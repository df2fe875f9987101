"""Graceful shutdown on SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (a scheduler's warning).

During a training iteration the first signal is deferred, and the trainer stops after the iteration. Elsewhere the
signal interrupts at once: nothing has to be finished, since all files are written atomically. A SIGINT after the first
signal always interrupts at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# One Ctrl-C reaches a process twice, from the terminal and from torchrun, within less time than two key presses.
SECONDS_OF_ONE_CTRL_C = 1.0
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]


class Interrupted(Exception):
    """A signal interrupted the run. `exit_code` follows the shell: 128 plus the signal number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _State:
    owner = 0  # process id that handles signals; children inherit the handlers but do not handle signals
    deferred = False
    received: int | None = None
    at = 0.0  # monotonic time of the first signal
    ending = False  # the final message is being printed
    speaks = True  # whether this process (one of several) prints that it stops


@contextmanager
def handle_signals(speaks: bool = True) -> Iterator[None]:
    """Handle the signals inside the context, then restore the previous handlers; `speaks`: print when one arrives."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.owner, _State.received, _State.deferred, _State.ending = os.getpid(), None, False, False
    _State.speaks = speaks
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_signals(yes: bool = True) -> Iterator[None]:
    """Defer signals inside the context (`yes`), or let them interrupt at once again inside a deferring context."""
    before, _State.deferred = _State.deferred, yes
    try:
        if not yes:
            check()
        yield
    finally:
        _State.deferred = before


def ignore_from_now() -> None:
    """Ignore further signals while a stopped run prints its final message."""
    _State.ending = True


def is_requested() -> bool:
    """Whether a signal has been received."""
    return _State.received is not None


def pending_signal() -> int:
    """Number of the received signal, or 0."""
    return _State.received or 0


def check() -> None:
    """Raise Interrupted if a signal has been received."""
    if _State.received is not None:
        raise Interrupted(_State.received)


def ignore_in_worker(_: int = 0) -> None:
    """Ignore signals in a data worker: its parent decides when to stop, even if the whole group is signalled."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.owner:  # a forked child: the parent ends its children with SIGTERM
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        return
    first, _State.received = _State.received is None, _State.received or number
    now, relayed = time.monotonic(), "TORCHELASTIC_RUN_ID" in os.environ
    if first:
        _State.at = now
    if _State.ending or (relayed and not first and now - _State.at < SECONDS_OF_ONE_CTRL_C):
        return
    if not first and number == signal.SIGINT:
        raise KeyboardInterrupt
    if not _State.deferred:
        raise Interrupted(number)
    if _State.speaks:
        # os.write, because the handler may have interrupted a write to the buffered stream.
        os.write(2, f"\n{signal.Signals(number).name}: stopping after this iteration; Ctrl-C stops at once\n".encode())
