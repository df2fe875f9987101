"""Shared memory of data workers: number and size of images in flight, exact values, one-line error if it is full."""

from __future__ import annotations

import multiprocessing
import os
import queue
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advent.cli import run_cli
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.build_cache import fill_cache
from advent.dataset.depth_formats import depth_reader
from advent.dataset.loader import THREADS, load_batches, lost_worker, sequential_batches
from advent.dataset.resize import resize_depth
from advent.dataset.spec import load_spec
from advent.errors import DataError
from helpers.custom_specs import BINARY, read, spec_of
from helpers.dataset_layouts import C7, gray, rgb, save

CPU = torch.device("cpu")


class Worked(StreetDataset):
    """Data set that calls `before` in the worker for every image and counts the images."""

    before: Any = None

    def get_uint8(self, index: int) -> dict[str, Any]:
        if self.before is not None:
            self.before()
        with self.counter.get_lock():
            self.counter.value += 1
        return super().get_uint8(index)


def street(root: Path, **options: Any) -> Worked:
    dataset = Worked(load_spec("streets"), root / "streets", "all", C7, size=(64, 48), **options)
    dataset.counter = multiprocessing.Value("i", 0)
    return dataset


@pytest.mark.parametrize(("batch", "group"), [(1, THREADS), (2, THREADS), (3, 3), (6, 6)])
def test_images_in_flight_are_bounded(data: Path, batch: int, group: int) -> None:
    """A group has max(batch, THREADS) images in full batches. More would fill /dev/shm (64 MiB in Docker)."""
    dataset, workers = street(data), 2
    order = [[index % len(dataset) for index in range(at, at + batch)] for at in range(0, 60 * batch, batch)]
    batches = load_batches(dataset, workers, CPU, order)
    next(batches)
    in_flight = (workers + 1) * group
    deadline = time.monotonic() + 60
    while dataset.counter.value < in_flight and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)  # time for a worker that does not stop to read more
    assert dataset.counter.value == in_flight
    batches.close()


DEPTHS = [
    "{kind: synthia_cm}",
    "{kind: distance, unit: m, scale: 0.01, unknown: [0, 65535]}",
    "{kind: inverse, unit: m, scale: 0.001}",
    "{kind: inverse, unit: m, unknown: [0, .nan]}",
]


@pytest.mark.parametrize("form", DEPTHS)
@pytest.mark.parametrize("size", [(256, 256), (101, 67)])
def test_depth_travels_in_16_bits_and_arrives_to_the_same_bits(
    tmp_path: Path, form: str, size: tuple[int, int]
) -> None:
    spec = spec_of(tmp_path, BINARY % ("png", "", "") + f"depth: {form}\n")
    save(tmp_path / "images/1.png", rgb(7, (256, 256)))
    save(tmp_path / "masks/1.png", gray(1, (256, 256)))
    file = save(tmp_path / "depth/1.png", np.arange(2**16, dtype=np.uint16).reshape(256, 256))  # every 16-bit value
    options = {"with_depth": True, "with_labels": True, "size": size, "label_size": size}
    expected = torch.from_numpy(resize_depth(depth_reader(spec.depth, "mine")(file, None), size))
    fill_cache(read(spec, tmp_path, cache_dir=tmp_path / "cache", **options))
    cached = read(spec, tmp_path, cache_dir=tmp_path / "cache", **options)
    assert cached.cache is not None
    assert cached.cache.used
    for dataset in (read(spec, tmp_path, **options), cached):
        item, compact = dataset[0], dataset.get_uint8(0)
        assert sum(t.nbytes for t in compact.values() if isinstance(t, torch.Tensor)) == 6 * size[0] * size[1]
        for workers in (0, 1):
            (batch,) = load_batches(dataset, workers, CPU, [[0]])
            assert batch.keys() == item.keys()
            for depth in (item["depth"], batch["depth"][0]):
                assert depth.dtype == torch.float32
                assert torch.equal(depth, expected)
            if "unknown" in form:
                assert torch.equal(batch["depth_known"][0], expected > 0)
                assert torch.equal(item["depth_known"], expected > 0)


def test_depth_of_synthia_is_the_closed_form(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, BINARY % ("png", "", "") + "depth: {kind: synthia_cm}\n")
    save(tmp_path / "images/1.png", rgb())
    save(tmp_path / "depth/1.png", np.full((16, 24), 65535, np.uint16))
    save(tmp_path / "images/2.png", rgb())
    save(tmp_path / "depth/2.png", np.full((16, 24), 255, np.uint16))
    far, near = load_batches(read(spec, tmp_path, with_depth=True), 0, CPU, [[0], [1]])
    assert (far["depth"].unique().tolist(), near["depth"].unique().tolist()) == ([1.0], [256.0])


def test_padded_float_depth_is_unknown(tmp_path: Path) -> None:
    """A padded pixel has inverse depth 0 (unknown); the file value 0 would be a valid depth."""
    spec = spec_of(tmp_path, BINARY % ("png", "", "") + "depth: {kind: distance, unit: m}\ngeometry: pad\n")
    save(tmp_path / "images/1.png", rgb(7, (64, 64)))
    save(tmp_path / "depth/1.png", np.full((64, 64), 3, np.uint16))
    dataset = read(spec, tmp_path, with_depth=True, size=(64, 32), label_size=(64, 32))
    (batch,) = load_batches(dataset, 0, CPU, [[0]])
    assert dataset.depth_table is None
    assert torch.equal(batch["depth"][0], dataset[0]["depth"])
    assert batch["depth_known"][0].sum() == 32 * 32
    assert (batch["depth"][0][~batch["depth_known"][0]] == 0).all()


def test_cache_of_float_depth_is_not_read_as_16_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path, BINARY % ("png", "", "") + "depth: {kind: synthia_cm}\n")
    save(tmp_path / "images/1.png", rgb())
    save(tmp_path / "depth/1.png", np.full((16, 24), 255, np.uint16))
    with monkeypatch.context() as patch:
        patch.setattr(StreetDataset, "_depth_table", lambda *_: None)  # as written by an earlier version
        fill_cache(read(spec, tmp_path, with_depth=True, cache_dir=tmp_path / "cache"))
    again = read(spec, tmp_path, with_depth=True, cache_dir=tmp_path / "cache")
    assert again.cache is not None
    assert not again.cache.used
    assert again[0]["depth"].unique().tolist() == [256.0]


class KillItself:
    """Sends a signal to the process that calls it; workers of a fork server receive it pickled."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __call__(self) -> None:
        os.kill(os.getpid(), self.number)


def full() -> None:
    """Simulates a full /dev/shm: with a file-size limit of 0, shared memory cannot be allocated either."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize("sizes", ["equal", "native"])
def test_full_shared_memory_is_one_line(data: Path, sizes: str) -> None:
    """Labels of different native sizes are sent one by one; their failure in the queue's thread was once lost."""
    if sizes == "native":
        save(data / "streets/parsed_LABELS/0000001.png", gray(3, (80, 60)))
    dataset = street(data, with_labels=True)
    dataset.before = full
    with pytest.raises(DataError, match=r"/dev/shm.*--shm-size.*--ipc=host.*NUM_WORKERS") as error:
        list(load_batches(dataset, 1, CPU, sequential_batches(len(dataset), 2)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGBUS, ["/dev/shm", "--shm-size", "NUM_WORKERS"]),
        (signal.SIGKILL, ["Killed", "NUM_WORKERS"]),
    ],
)
def test_a_worker_that_dies_is_one_line(
    data: Path, number: signal.Signals, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A full /dev/shm causes SIGBUS where the system does not reserve memory in advance; the signal is sent here."""
    dataset = street(data)
    dataset.before = KillItself(number)
    code = run_cli(
        "train.py", lambda: list(load_batches(dataset, 1, CPU, sequential_batches(len(dataset), 1))) and None, []
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train.py: error:")]
    assert code == 2
    assert len(lines) == 1
    if multiprocessing.get_start_method() != "fork":  # the worker is another process's child: its signal is unknown
        words = ["exited unexpectedly", "/dev/shm", "NUM_WORKERS"]
    assert [word for word in words if word not in lines[0]] == [], lines[0]


def test_a_lost_worker_without_a_known_signal_is_one_line() -> None:
    """Under a fork server (Python 3.14) the cause is an exception without text."""
    try:
        raise RuntimeError("DataLoader worker (pid(s) 17) exited unexpectedly") from queue.Empty()
    except RuntimeError as error:
        line = lost_worker(error)
    assert line is not None
    assert line.startswith("DataLoader worker (pid(s) 17) exited unexpectedly; ")
    assert "NUM_WORKERS" in line
    assert "\n" not in line
