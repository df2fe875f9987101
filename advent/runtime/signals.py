"""Being asked to stop: SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (a scheduler's warning) end a run at a good place.

While an iteration runs, the first signal is only remembered and the loop stops after it; elsewhere nothing has to be
finished, since every file appears whole, and the signal acts at once. A SIGINT after the first signal always acts at
once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# On Ctrl-C the terminal and torchrun both tell a process; a person who presses it twice takes longer.
SECONDS_OF_ONE_CTRL_C = 1.0
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]


class Interrupted(Exception):
    """The run was asked to stop, and has. `exit_code` is the shell's: 128 plus the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _State:
    owner = 0  # the process that listens; children inherit the handlers, not the duty
    deferred = False
    received: int | None = None
    at = 0.0  # when, monotonic
    ending = False  # the last words are being said
    speaks = True  # of several processes a single one says that it stops


@contextmanager
def handle_signals(speaks: bool = True) -> Iterator[None]:
    """Handle the signals meanwhile, and say so if it `speaks`; the handlers that were there come back afterwards."""
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
    """Only remember signals meanwhile (`yes`), or let them act at once again inside such a stretch."""
    before, _State.deferred = _State.deferred, yes
    try:
        if not yes:
            check()
        yield
    finally:
        _State.deferred = before


def ignore_from_now() -> None:
    """Let no further signal disturb the last words of a run that has stopped."""
    _State.ending = True


def is_requested() -> bool:
    """Whether a signal has been remembered."""
    return _State.received is not None


def pending_signal() -> int:
    """The remembered signal's number, or 0."""
    return _State.received or 0


def check() -> None:
    """Raise Stopped if a signal has been remembered."""
    if _State.received is not None:
        raise Interrupted(_State.received)


def ignore_in_worker(_: int = 0) -> None:
    """For a worker process: the parent decides when to stop, also where a scheduler signals the whole group."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.owner:  # a forked child: the parent decides, and ends its children by SIGTERM
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
        # os.write, since a handler may interrupt a write to the buffered stream.
        os.write(2, f"\n{signal.Signals(number).name}: stopping after this iteration; Ctrl-C stops at once\n".encode())
