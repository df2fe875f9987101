"""Folder lock: holder and acquisition, on POSIX and on a simulated Windows."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from advent.checkpoints.run_dir import MetricsFile
from advent.errors import FolderInUse
from advent.runtime import lock
from advent.runtime.lock import FolderLock, holder


class Windows:
    """Simulates Windows' `os`, `msvcrt` and file removal on this system's files.

    A lock belongs to an open file and prevents others from reading the locked bytes. An open file cannot be removed.
    Functions that Windows lacks raise AttributeError.
    """

    LACKS = ("O_CLOEXEC", "pread", "pwrite", "fork")
    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self) -> None:
        self.open_files: dict[int, Path] = {}
        self.locks: dict[tuple[Path, int], int] = {}  # (file, byte) -> handle

    def __getattr__(self, name: str) -> Any:
        if name in self.LACKS:
            raise AttributeError(name)
        return getattr(os, name)

    def open(self, path: Path, *flags: int) -> int:
        handle = os.open(path, *flags)
        self.open_files[handle] = Path(path)
        return handle

    def close(self, handle: int) -> None:
        del self.open_files[handle]
        self.locks = {place: owner for place, owner in self.locks.items() if owner != handle}
        os.close(handle)

    def read(self, handle: int, count: int) -> bytes:
        at, path = os.lseek(handle, 0, os.SEEK_CUR), self.open_files[handle]
        if any(
            file == path and at <= byte < at + count and owner != handle for (file, byte), owner in self.locks.items()
        ):
            raise PermissionError(errno.EACCES, "another process has locked a portion of the file")
        return os.read(handle, count)

    def fsync(self, handle: int) -> None:
        os.write(handle, b"")  # as on Windows: EBADF if the file is open for reading only
        os.fsync(handle)

    def locking(self, handle: int, mode: int, count: int) -> None:
        place = (self.open_files[handle], os.lseek(handle, 0, os.SEEK_CUR))
        if mode == self.LK_UNLCK:
            del self.locks[place]
        elif self.locks.setdefault(place, handle) != handle:
            raise PermissionError(errno.EACCES, "Permission denied")

    def unlink(self, path: Path, missing_ok: bool = False) -> None:
        if path in self.open_files.values():
            raise PermissionError(errno.EACCES, "the file is being used by another process")
        if path.exists() or not missing_ok:
            os.unlink(path)


@pytest.fixture(params=["this system", "Windows"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Windows":
        windows = Windows()
        monkeypatch.setattr(lock, "os", windows)
        monkeypatch.setattr(lock, "msvcrt", windows)
        monkeypatch.setattr(lock, "fcntl", None)
        monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: windows.unlink(path, missing_ok))
    return request.param


def test_released_lock_leaves_no_file_and_can_be_acquired_again(system: str, tmp_path: Path) -> None:
    for _ in range(2):
        taken = FolderLock(tmp_path / "new").acquire()
        assert (tmp_path / "new/run.lock").exists()
        taken.release()
        taken.release()
        assert holder(tmp_path / "new") is None
        assert list((tmp_path / "new").iterdir()) == []


def test_stale_lock_file_is_ignored(system: str, tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text("{half")
    assert holder(tmp_path) is None
    FolderLock(tmp_path).acquire().release()


def test_windows_names_the_lock_holder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The POSIX version needs a second process and is in tests/cli/test_faults.py."""
    windows = Windows()
    for name, value in (("os", windows), ("msvcrt", windows), ("fcntl", None)):
        monkeypatch.setattr(lock, name, value)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: windows.unlink(path, missing_ok))
    first = FolderLock(tmp_path).acquire()
    with pytest.raises(FolderInUse, match=f"another run works here \\(process {os.getpid()} on .* since 20"):
        FolderLock(tmp_path).acquire()
    assert f"process {os.getpid()} on " in str(holder(tmp_path))
    first.release()
    second = FolderLock(tmp_path).acquire()
    second.release()
    assert windows.open_files == {}


def test_a_system_without_locks_warns_and_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "msvcrt", None)
    taken = FolderLock(tmp_path).acquire()
    assert "supports no locks" in caplog.text
    taken.release()
    assert list(tmp_path.iterdir()) == []


def test_metrics_are_flushed_where_fsync_needs_a_writer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Windows, and its simulation, refuse `fsync` on a file that is open for reading only."""
    windows = Windows()
    with open(tmp_path / "probe", "wb"), open(tmp_path / "probe", "rb") as probe, pytest.raises(OSError):
        windows.fsync(probe.fileno())
    monkeypatch.setattr("advent.checkpoints.run_dir.os", SimpleNamespace(fsync=windows.fsync, SEEK_END=os.SEEK_END))
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
