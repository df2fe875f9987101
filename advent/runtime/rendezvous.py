"""Rendezvous: a store for the living processes alone, and the id of the torchrun start that they belong to.

torchrun keeps its store over restarts, and with it what dead processes had written. A process that read the address of
a dead one there would wait for it until the timeout. torchrun's count of restarts does not tell the starts apart: on
several machines each counts its own.
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
LAUNCHER_TIMEOUT = timedelta(minutes=5)  # torchrun's store is there before its processes are
START_TIME = 19  # fields after the command's name in /proc/PID/stat (proc(5): field 22)


def fresh_store(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    """A part of `store` for the `size` living processes alone, under a name that this start's rank 0 chooses.

    Every process says hello under a number of its own. Rank 0 answers whatever number it finds, perhaps a dead one's,
    until all ranks have come to the name it chose. Raises RuntimeError when one does not come in time.
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
            raise RuntimeError(f"rank {min(missing)} did not come")
        time.sleep(SECONDS_BETWEEN_LOOKS if missing else 0)
    return dist.PrefixStore(own, store)


def launcher_id() -> str | None:
    """Id of the torchrun start above this process: equal before and after its restarts, never equal for two starts.

    Its run id and process id do not do: the run id is `none` unless given, and containers repeat host and process ids.
    A random id lies in the store that torchrun itself holds. Where a process holds the store (PyTorch 2.4 with the
    c10d rendezvous), the launcher's start time tells, on Linux. None where neither does. Raises RuntimeError when
    torchrun's store does not answer.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return _launcher_process(os.getppid())
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=LAUNCHER_TIMEOUT)
    # Only the first value is kept: every later process, restarted ones too, gets that one.
    return store.compare_set("launcher_id", "", uuid.uuid4().hex).decode()


def _launcher_process(pid: int, proc: Path = Path("/proc")) -> str | None:
    """A process by host, boot, process id and start time; None where /proc does not tell them."""
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return f"{socket.gethostname()} {boot} {pid} {fields[START_TIME]}"
    except (OSError, IndexError):
        return None
