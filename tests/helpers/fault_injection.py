"""Stage script with an injected fault, started by torchrun: `fault_injection.py HOW RANK ITERATION SCRIPT ARGUMENTS`.

HOW: kill (SIGKILL), raise (a bug), term (SIGTERM to this process alone), hang (no answer), or spawn (no fault; data
workers are spawned). Only the first start fails; a restart by torchrun runs without the fault. `NOTE` in the
environment names a file to which rank 0 appends every iteration that it begins.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]


def main() -> int:
    how, rank, iteration, script, *argv = sys.argv[1:]
    if how == "spawn":
        multiprocessing.set_start_method("spawn")
    from advent.training.learner import Learner

    really = Learner.update
    mine = os.environ["RANK"] == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

    def update(self: Any, now: int, *batches: Any) -> Any:
        if os.environ["RANK"] == "0" and "NOTE" in os.environ:
            with open(os.environ["NOTE"], "a") as note:
                note.write(f"{now}\n")
        if mine and now == int(iteration):
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "term":
                os.kill(os.getpid(), signal.SIGTERM)
            if how == "raise":
                raise ZeroDivisionError("a bug of ours")
            if how == "hang":
                time.sleep(3600)
        return really(self, now, *batches)

    Learner.update = update  # type: ignore[method-assign]
    return __import__(script).main(argv)


if __name__ == "__main__":
    sys.exit(main())
