"""Where the processes of one start meet: torchrun keeps its store over restarts, and with it what the dead had written.

A process that read the address of a dead one there would wait for it for as long as it waits for anybody. torchrun's
count of restarts does not tell the starts apart: on several machines each counts its own.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

import torch.distributed as dist

SECONDS_BETWEEN_LOOKS = 0.02


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
