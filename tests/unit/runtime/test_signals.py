"""Signal handling: deferred during an iteration, immediate elsewhere."""

import os
import signal

import pytest

from advent.runtime import signals
from advent.runtime.signals import Interrupted


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138)])
def test_signal_outside_an_iteration_interrupts(name, code):
    with signals.handle_signals(), pytest.raises(Interrupted) as stop:
        send(getattr(signal, name))
    assert (str(stop.value), stop.value.exit_code) == (name, code)


def test_signal_inside_an_iteration_is_deferred(capfd):
    with signals.handle_signals(), signals.defer_signals():
        send(signal.SIGTERM)
        assert signals.is_requested()
        with pytest.raises(Interrupted):
            signals.check()
    assert "stopping after this iteration" in capfd.readouterr().err


def test_signal_in_a_long_hook_interrupts():
    with signals.handle_signals(), signals.defer_signals(), pytest.raises(Interrupted), signals.defer_signals(False):
        send(signal.SIGUSR1)


def test_pending_signal_prevents_a_long_hook():
    with signals.handle_signals(), signals.defer_signals():
        send(signal.SIGTERM)
        with pytest.raises(Interrupted), signals.defer_signals(False):
            pytest.fail("began")


def test_a_second_interrupt_stops_at_once():
    with signals.handle_signals(), signals.defer_signals():
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_handlers_are_restored_and_pending_signals_cleared():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with signals.handle_signals(), signals.defer_signals():
        send(signal.SIGTERM)
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before
    with signals.handle_signals():
        assert not signals.is_requested()


def test_signals_are_ignored_during_shutdown():
    with signals.handle_signals():
        signals.ignore_from_now()
        send(signal.SIGINT)
        send(signal.SIGTERM)
    with signals.handle_signals(), pytest.raises(Interrupted):
        send(signal.SIGTERM)
