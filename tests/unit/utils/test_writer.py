"""The writer of pseudo labels and predictions: bounded, errors at once, nothing more begun once it is to stop."""

from __future__ import annotations

import errno
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from advent.config.loading import load_config
from advent.model.outputs import NetworkOutputs
from advent.runtime.signals import Interrupted
from advent.utils.writer import PENDING, THREADS, Writer
from helpers.dataset_layouts import C7
from ida import pseudo_labels, rank_stage

CPU = torch.device("cpu")
IMAGES = 200


def no_room(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "label.png")


def test_what_waits_is_bounded() -> None:
    gate, submitted, written = threading.Event(), [], []

    def write(number: int) -> None:
        gate.wait()
        written.append(number)

    def work() -> None:
        with Writer(threads=2, pending=5) as writer:
            for number in range(50):
                writer.submit(write, number)
                submitted.append(number)

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 10
    while len(submitted) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert submitted == [0, 1, 2, 3, 4]
    gate.set()
    thread.join(10)
    assert sorted(written) == list(range(50))  # the end of the block waits for all of them


def test_an_error_shows_at_a_following_write() -> None:
    begun = []

    def write(number: int) -> None:
        begun.append(number)
        no_room()

    def work() -> None:
        with Writer() as writer:
            for number in range(IMAGES):
                writer.submit(write, number)

    with pytest.raises(OSError, match="No space left") as error:
        work()
    assert error.value.errno == errno.ENOSPC
    assert len(begun) <= PENDING + 1


def test_an_error_of_the_last_write_is_not_lost() -> None:
    with pytest.raises(OSError, match="No space left"), Writer() as writer:
        writer.submit(no_room)


@pytest.mark.parametrize("stop", [Interrupted(signal.SIGTERM), KeyboardInterrupt(), ValueError("a bug of ours")])
def test_what_has_not_begun_is_dropped_on_a_signal_or_an_error(stop: BaseException) -> None:
    gate, begun = threading.Event(), []

    def write(number: int) -> None:
        begun.append(number)
        gate.wait()

    def work() -> None:
        with Writer() as writer:
            for number in range(PENDING):
                writer.submit(write, number)
            while len(begun) < THREADS:
                time.sleep(0.01)
            threading.Timer(0.2, gate.set).start()
            raise stop

    with pytest.raises(type(stop)):
        work()
    assert sorted(begun) == list(range(THREADS))


def all_images(predicted: list[str]) -> Any:
    """Stands in for the predictions of a network, one image a batch."""

    class Predictions:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def read(self, what: str) -> Iterator[tuple[list[str], NetworkOutputs]]:
            for number in range(IMAGES):
                predicted.append(f"{number}.png")
                time.sleep(0.001)  # a forward pass
                yield [predicted[-1]], NetworkOutputs(None, torch.randn(1, 7, 4, 6), torch.rand(1, 1, 4, 6))

    return Predictions


def test_a_full_disk_ends_self_learning_at_the_first_labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    predicted: list[str] = []
    monkeypatch.setattr(pseudo_labels, "Predictions", all_images(predicted))
    monkeypatch.setattr(pseudo_labels, "write_label", no_room)
    with pytest.raises(OSError, match="No space left"):
        pseudo_labels.label_dataset(torch.nn.Identity(), None, load_config("isl"), CPU, tmp_path, "round_0")
    assert len(predicted) <= PENDING + 2


def test_a_full_disk_ends_the_ranking_at_the_first_labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    predicted: list[str] = []
    monkeypatch.setattr(rank_stage, "Predictions", all_images(predicted))
    monkeypatch.setattr(rank_stage, "write_label", no_room)
    with pytest.raises(OSError, match="No space left"):
        rank_stage._score_all(load_config("rank"), torch.nn.Identity(), None, C7, (), CPU, tmp_path)
    assert len(predicted) <= PENDING + 2
