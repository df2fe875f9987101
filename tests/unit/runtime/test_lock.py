"""Folder lock: holder, acquisition, release."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from advent.checkpoints.run_dir import MetricsFile
from advent.errors import FolderInUse
from advent.runtime.lock import FolderLock, holder


def test_released_lock_leaves_no_file_and_can_be_acquired_again(tmp_path: Path) -> None:
    for _ in range(2):
        taken = FolderLock(tmp_path / "new").acquire()
        assert (tmp_path / "new/run.lock").exists()
        taken.release()
        taken.release()
        assert holder(tmp_path / "new") is None
        assert list((tmp_path / "new").iterdir()) == []


def test_stale_lock_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text("{half")
    assert holder(tmp_path) is None
    FolderLock(tmp_path).acquire().release()


def test_a_second_run_is_refused_in_one_line_that_names_the_first(tmp_path: Path) -> None:
    """The version with two processes is in tests/cli/test_faults.py."""
    first = FolderLock(tmp_path).acquire()
    with pytest.raises(FolderInUse, match=f"another run works here \\(process {os.getpid()} on .* since 20"):
        FolderLock(tmp_path).acquire()
    assert f"process {os.getpid()} on " in str(holder(tmp_path))
    first.release()
    FolderLock(tmp_path).acquire().release()


def test_asking_for_the_holder_keeps_the_lock(tmp_path: Path) -> None:
    """A POSIX record lock would be lost: closing any handle of the file releases it."""
    taken = FolderLock(tmp_path).acquire()
    assert holder(tmp_path) == holder(tmp_path) is not None
    taken.release()


def test_a_lock_lasts_without_a_reference(tmp_path: Path) -> None:
    FolderLock(tmp_path).acquire()
    gc.collect()
    assert holder(tmp_path) is not None


def test_the_holder_is_written_behind_the_byte_that_windows_locks(tmp_path: Path) -> None:
    taken = FolderLock(tmp_path).acquire()
    text = (tmp_path / "run.lock").read_bytes()
    assert json.loads(text[1:])["process"] == os.getpid()
    taken.release()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_warns_and_works(
    code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    taken = FolderLock(tmp_path).acquire()
    assert "supports no locks" in caplog.text
    assert holder(tmp_path) is None
    taken.release()
    assert list(tmp_path.iterdir()) == []


def test_metrics_are_flushed_where_fsync_needs_a_writer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Windows, and its simulation here, refuse `fsync` on a file that is open for reading only."""

    def fsync(handle: int) -> None:
        os.write(handle, b"")  # EBADF if the file is open for reading only
        os.fsync(handle)

    with open(tmp_path / "probe", "wb"), open(tmp_path / "probe", "rb") as probe, pytest.raises(OSError):
        fsync(probe.fileno())
    monkeypatch.setattr("advent.checkpoints.run_dir.os", SimpleNamespace(fsync=fsync, SEEK_END=os.SEEK_END))
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.append({"iteration": 1})
    assert metrics.flush() == len(b'{"iteration": 1}\n')
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"iteration": 1}\n'


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_workers_do_not_keep_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    """A forked data worker inherits its parent's open files but not its lock (with `flock` it would)."""
    out, into = os.pipe()
    if (run := os.fork()) == 0:
        FolderLock(tmp_path).acquire()
        if (worker := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        os.write(into, f"{worker}\n".encode())
        time.sleep(60)
        os._exit(0)
    worker = int(os.read(out, 100))
    try:
        assert f"process {run} on " in str(holder(tmp_path))
        os.kill(run, signal.SIGKILL)
        os.waitpid(run, 0)
        os.kill(worker, 0)  # the worker is alive
        FolderLock(tmp_path).acquire().release()
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(out)
        os.close(into)
