"""One run per folder: a lock that a crash releases by itself."""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import socket
import sys
import time
from pathlib import Path

from advent.engine import distributed
from advent.errors import FolderInUse

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
NAME = "run.lock"


class FolderLock:
    """Holds `run.lock` in a folder as long as this process lives, or until `release`.

    The system's record lock decides: it dies with its process, however that ends, is not inherited by data workers,
    and reaches across machines where the file system does. The file's text only tells who holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._handle: int | None = None

    def acquire(self) -> FolderLock:
        """Take the lock, of several processes rank 0 for all. Raises FolderInUse naming who holds it."""
        if not distributed.is_main():
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while self._handle is None:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                _lock(handle, self.path)
                if _is_at(handle, self.path):  # else its last holder removed it after we had opened it
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
        os.pwrite(self._handle, json.dumps(holder).encode(), 0)
        return self

    def release(self) -> None:
        """Give the lock back and remove its file; harmless when it is not held."""
        if self._handle is not None:
            self.path.unlink(missing_ok=True)  # before closing: nobody else can hold it now
            os.close(self._handle)
            self._handle = None


def holder(folder: Path) -> str | None:
    """Who works in a folder, or None; what a dead process left behind does not count."""
    try:
        handle = os.open(folder / NAME, os.O_RDWR)
    except OSError:
        return None
    try:
        if fcntl is not None:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except OSError:
        return _holder(handle)
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    if fcntl is None:
        log.warning("%s: this system has no file locks; see to it that one run uses a folder", path.parent)
        return
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            log.warning("%s: this file system keeps no locks (%s); one run per folder is up to you", path.parent, error)
            return
        raise FolderInUse(
            f"{path.parent}: another run works here ({_holder(handle)}); wait for it, stop it, or choose another "
            "folder with --exp-suffix NAME"
        ) from None


def _holder(handle: int) -> str:
    try:
        facts = json.loads(os.pread(handle, 65536, 0))
        return f"process {facts['process']} on {facts['host']} since {facts['since']}: {facts['command'][:200]}"
    except (ValueError, TypeError, KeyError):
        return "it has just begun"


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
