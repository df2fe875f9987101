"""Folder lock (filelock): one run per folder; the operating system releases it after a crash."""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from advent.errors import FolderInUse
from advent.runtime import distributed

log = logging.getLogger(__name__)
NAME = "run.lock"
WAIT = 0.2  # seconds; a lock that is being released, or whose holder is being read, is not yet free
TEXT_AT = 1  # filelock locks byte 0, and Windows refuses to read a locked byte
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # error codes of file systems without locks
_held: set[FolderLock] = set()  # a lock that is referenced nowhere else would be released


class FolderLock:
    """Lock file `run.lock` in a folder, held until `release` or the end of this process.

    The system releases it when the process ends for any reason. Forked data workers do not keep it (filelock >= 4
    closes their copy of the file). The file's text only names the holder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._lock = _file_lock(self.path, _write_holder)

    def acquire(self) -> FolderLock:
        """Take the lock; with several processes, rank 0 takes it. Raises FolderInUse naming the holder."""
        if not distributed.is_main():
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise FolderInUse(
                f"{self.path.parent}: another run works here ({_read_holder(self.path)}); wait for it, stop it, or "
                "choose another folder with --exp-suffix NAME"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            reason = error.strerror
            log.warning(
                "%s: this file system supports no locks (%s); start one run per folder", self.path.parent, reason
            )
            self.path.unlink(missing_ok=True)
            return self
        _held.add(self)
        return self

    def release(self) -> None:
        """Release the lock and remove its file; does nothing if it is not held."""
        if self not in _held:
            return
        _held.remove(self)
        with suppress(OSError):  # Windows removes no open file; filelock does it after the release
            self.path.unlink(missing_ok=True)  # while it is locked, so that no other process can hold it yet
        self._lock.release()


def holder(folder: Path) -> str | None:
    """Description of the process that holds a folder's lock, or None; a lock file of a dead process is ignored."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with _file_lock(path):
            return None
    except Timeout:
        return _read_holder(path)
    except OSError:
        return None


def _file_lock(path: Path, on_acquired: Callable[[int], None] | None = None) -> FileLock:
    return FileLock(
        path, WAIT, mode=0o666, thread_local=False, fallback_to_soft=False, poll_interval=0.02, on_acquired=on_acquired
    )


def _write_holder(handle: int) -> None:
    facts = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join(sys.argv),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, b" " * TEXT_AT + json.dumps(facts).encode())


def _read_holder(path: Path) -> str:
    try:
        with open(path, "rb", buffering=0) as handle:  # a buffer would read from byte 0
            handle.seek(TEXT_AT)
            facts = json.loads(handle.read(65536))
        return f"process {facts['process']} on {facts['host']} since {facts['since']}: {facts['command'][:200]}"
    except (OSError, ValueError, TypeError, KeyError):
        return "it has just started"
