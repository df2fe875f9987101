"""Folder lock: one run per folder; the operating system releases it after a crash."""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from advent.errors import FolderInUse
from advent.runtime import distributed

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
NAME = "run.lock"
# Windows refuses reads of a locked range, so one byte far beyond the text is locked instead of the whole file.
LOCKED_BYTE = 2**30
HELD = (errno.EACCES, errno.EAGAIN)  # error codes when another process holds the lock


class FolderLock:
    """Lock file `run.lock` in a folder, held until `release` or the end of this process.

    It is a POSIX record lock: the system releases it when the process ends for any reason, data workers do not inherit
    it, and it works across machines if the file system supports that. The file's text only names the holder. filelock
    is not used: its `flock` belongs to the open file, which forked data workers share and keep after a kill.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._handle: int | None = None

    def acquire(self) -> FolderLock:
        """Take the lock; with several processes, rank 0 takes it. Raises FolderInUse naming the holder."""
        if not distributed.is_main():
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while self._handle is None:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(handle, self.path)
                if _is_at(handle, self.path):  # else the last holder removed the file after it was opened here
                    self._handle = handle
            finally:
                if self._handle is None:
                    os.close(handle)
        holder = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "command": shlex.join(sys.argv),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        os.ftruncate(self._handle, 0)
        os.lseek(self._handle, 0, os.SEEK_SET)
        os.write(self._handle, json.dumps(holder).encode())
        return self

    def release(self) -> None:
        """Release the lock and remove its file; does nothing if it is not held."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        if fcntl is not None:
            self.path.unlink(missing_ok=True)  # before closing, so that no other process can hold it yet
            os.close(handle)
            return
        with suppress(OSError):  # not locked if the file system does not support locks
            _unlock(handle)
        os.close(handle)
        with suppress(OSError):  # Windows does not remove an open file: then another process holds it
            self.path.unlink(missing_ok=True)


def holder(folder: Path) -> str | None:
    """Description of the process that holds a folder's lock, or None; a lock file of a dead process is ignored."""
    try:
        handle = os.open(folder / NAME, os.O_RDWR)
    except OSError:
        return None
    try:
        _try_lock(handle)
        return None
    except OSError as error:
        return _holder(handle) if error.errno in HELD else None
    finally:
        os.close(handle)  # also releases the lock


def _try_lock(handle: int) -> None:
    """Lock an open file for this process until it is closed. Raises OSError, with an errno in HELD if it is taken."""
    if fcntl is not None:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def _unlock(handle: int) -> None:
    """Release the lock of `_try_lock` on Windows, where closing the file may release it late."""
    if msvcrt is not None:
        os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]


def _lock(handle: int, path: Path) -> None:
    try:
        _try_lock(handle)
    except OSError as error:
        if error.errno not in HELD:
            log.warning(
                "%s: this file system supports no locks (%s); start only one run per folder", path.parent, error
            )
            return
        raise FolderInUse(
            f"{path.parent}: another run works here ({_holder(handle)}); wait for it, stop it, or choose another "
            "folder with --exp-suffix NAME"
        ) from None


def _holder(handle: int) -> str:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        facts = json.loads(os.read(handle, 65536))
        return f"process {facts['process']} on {facts['host']} since {facts['since']}: {facts['command'][:200]}"
    except (ValueError, TypeError, KeyError):
        return "it has just started"


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
