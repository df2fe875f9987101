"""Signals: remembered while an iteration runs, acting at once elsewhere."""

import os
import signal

import pytest

from advent.engine import stopping
from advent.engine.stopping import Stopped


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138)])
def test_acts_at_once_outside_an_iteration(name, code):
    with stopping.listening(), pytest.raises(Stopped) as stop:
        send(getattr(signal, name))
    assert (str(stop.value), stop.value.exit_code) == (name, code)


def test_is_remembered_inside(capfd):
    with stopping.listening(), stopping.deferred():
        send(signal.SIGTERM)
        assert stopping.requested()
        with pytest.raises(Stopped):
            stopping.check()
    assert "stopping after this iteration" in capfd.readouterr().err


def test_acts_at_once_in_a_long_hook():
    with stopping.listening(), stopping.deferred(), pytest.raises(Stopped), stopping.deferred(False):
        send(signal.SIGUSR1)


def test_a_remembered_signal_keeps_a_long_hook_from_starting():
    with stopping.listening(), stopping.deferred():
        send(signal.SIGTERM)
        with pytest.raises(Stopped), stopping.deferred(False):
            pytest.fail("began")


def test_a_second_interrupt_stops_at_once():
    with stopping.listening(), stopping.deferred():
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_handlers_come_back_and_nothing_is_remembered():
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    with stopping.listening(), stopping.deferred():
        send(signal.SIGTERM)
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before
    with stopping.listening():
        assert not stopping.requested()


def test_nothing_disturbs_the_last_words():
    with stopping.listening():
        stopping.ignore_from_now()
        send(signal.SIGINT)
        send(signal.SIGTERM)
    with stopping.listening(), pytest.raises(Stopped):
        send(signal.SIGTERM)
