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
# Windows refuses to read what another process has locked: a byte far behind the text is locked instead of all.
LOCKED_BYTE = 2**30
HELD = (errno.EACCES, errno.EAGAIN)  # what systems say when another process has the lock


class FolderLock:
    """Holds `run.lock` in a folder as long as this process lives, or until `release`.

    The system's record lock decides: it dies with its process, however that ends, is not inherited by data workers,
    and reaches across machines where the file system does. The file's text only tells who holds it. (filelock would
    not do: its `flock` belongs to the open file, which forked data workers share and keep after a kill.)
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
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
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
        os.lseek(self._handle, 0, os.SEEK_SET)
        os.write(self._handle, json.dumps(holder).encode())
        return self

    def release(self) -> None:
        """Give the lock back and remove its file; harmless when it is not held."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        if fcntl is not None:
            self.path.unlink(missing_ok=True)  # before closing: no other process can hold it now
            os.close(handle)
            return
        with suppress(OSError):  # not locked, where the file system keeps no locks
            _unlock(handle)
        os.close(handle)
        with suppress(OSError):  # Windows removes no open file: then another process has taken it since
            self.path.unlink(missing_ok=True)


def holder(folder: Path) -> str | None:
    """Who works in a folder, or None; what a dead process left behind does not count."""
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
        os.close(handle)  # gives the lock back


def _try_lock(handle: int) -> None:
    """Lock an open file for this process until it is closed. Raises OSError, with one of HELD where another has it."""
    if fcntl is not None:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def _unlock(handle: int) -> None:
    """Give back what `_try_lock` took on Windows, which may be slow to do so for a file that is just closed."""
    if msvcrt is not None:
        os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]


def _lock(handle: int, path: Path) -> None:
    try:
        _try_lock(handle)
    except OSError as error:
        if error.errno not in HELD:
            log.warning("%s: this file system keeps no locks (%s); one run per folder is up to you", path.parent, error)
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
        return "it has just begun"


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
