"""Stage script with an injected fault, started by torchrun: `fault_injection.py HOW RANK ITERATION SCRIPT ARGUMENTS`.

HOW: kill (SIGKILL), raise (a bug), term (SIGTERM to this process alone), hang (no answer), or spawn (no fault; data
workers are spawned). Only the first start fails; a restart by torchrun runs without the fault. `NOTE` in the
environment names a file to which rank 0 appends every iteration that it begins. `TIMEOUT` is the time in seconds that
a process waits for one that does not answer.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]


def main() -> int:
    fault, rank, iteration, script, *argv = sys.argv[1:]
    if fault == "spawn":
        multiprocessing.set_start_method("spawn")
    from advent.runtime import distributed
    from advent.training.learner import Learner

    if "TIMEOUT" in os.environ:
        distributed.TIMEOUT = timedelta(seconds=float(os.environ["TIMEOUT"]))
    original = Learner.update
    is_this_process = os.environ["RANK"] == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

    def update(self: Any, current: int, *batches: Any) -> Any:
        if os.environ["RANK"] == "0" and "NOTE" in os.environ:
            with open(os.environ["NOTE"], "a") as note:
                note.write(f"{current}\n")
        if is_this_process and current == int(iteration):
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "term":
                os.kill(os.getpid(), signal.SIGTERM)
            if fault == "raise":
                raise ZeroDivisionError("a bug of ours")
            if fault == "hang":
                time.sleep(3600)
        return original(self, current, *batches)

    Learner.update = update  # type: ignore[method-assign]
    return __import__(script).main(argv)


if __name__ == "__main__":
    sys.exit(main())
