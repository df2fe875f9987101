"""Fresh rendezvous store per restart, and the id of the torchrun launch.

torchrun reuses its store over restarts, which may hold keys of dead processes. A process that read the address of a
dead one would wait for it until the timeout. torchrun's restart count does not identify a restart: on several machines
each counts its own.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

SECONDS_BETWEEN_LOOKS = 0.02
LAUNCHER_TIMEOUT = timedelta(minutes=5)  # torchrun's store exists before its processes
START_TIME = 19  # index among the fields after the command name in /proc/PID/stat (proc(5): field 22)


def fresh_store(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    """A prefix of `store` that only the `size` living processes use; rank 0 of this restart chooses the prefix.

    Every other rank writes a random id to `hello/RANK` and waits for rank 0's answer to that id. Rank 0 answers every
    id that it reads, possibly a dead process's, until all ranks have confirmed under its prefix. Raises RuntimeError if
    a rank does not join within `timeout`.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"hello/{rank}", own)
        store.wait([f"welcome/{own}"], timeout)
        name = store.get(f"welcome/{own}").decode()
        store.set(f"{name}/here/{rank}", "")
        return dist.PrefixStore(name, store)
    missing, until = set(range(1, size)), time.monotonic() + timeout.total_seconds()
    while missing:
        for other in sorted(missing):
            if store.check([f"hello/{other}"]):
                store.set(f"welcome/{store.get(f'hello/{other}').decode()}", own)
        missing = {other for other in missing if not store.check([f"{own}/here/{other}"])}
        if time.monotonic() > until:
            raise RuntimeError(f"rank {min(missing)} did not join in time")
        time.sleep(SECONDS_BETWEEN_LOOKS if missing else 0)
    return dist.PrefixStore(own, store)


def launcher_id() -> str | None:
    """Id of the torchrun launch of this process: the same over its restarts, different for every launch.

    torchrun's run id and process id are not unique: the run id is `none` by default, and containers repeat host and
    process ids. If torchrun holds the store, the id is a random one stored there. If a process holds the store (PyTorch
    2.4 with the c10d rendezvous), the id uses the launcher's start time, on Linux. Returns None if neither is
    available. Raises RuntimeError if torchrun's store does not respond.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return _launcher_process(os.getppid())
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=LAUNCHER_TIMEOUT)
    # Only the first value is stored: every later process, including restarted ones, gets it.
    return store.compare_set("launcher_id", "", uuid.uuid4().hex).decode()


def _launcher_process(pid: int, proc: Path = Path("/proc")) -> str | None:
    """Id of a process from host, boot id, process id and start time; None without /proc."""
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return f"{socket.gethostname()} {boot} {pid} {fields[START_TIME]}"
    except (OSError, IndexError):
        return None
