"""Kill-and-resume stress test: resumed runs must write the same bytes as an uninterrupted run.

    python tests/helpers/kill_resume_stress.py --kills 100 --seed 1

Half of the kills happen at a random time, half at a file: half-written, written but not renamed, or just renamed.
A run is forked from a server that has imported everything, so a kill costs about a second.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from helpers import tiny_data

STAGE_SCRIPTS = ("train", "train_isl", "entropy", "train_intra")
# KEEP removes checkpoints. With LOG_EVERY=5 the metric buffer is not empty at a kill.
LONG = ["TRAIN.EARLY_STOP=12", "TRAIN.SAVE_LAST=true", "TRAIN.KEEP=2", "TRAIN.LOG_EVERY=5"]
# name -> stage script, config, stage folder, further arguments
SCENARIOS = {
    "DAF, 2 workers": ("train", "quick:daf", "daf", ["NUM_WORKERS=2"]),
    "ISL": ("train_isl", "quick:isl", "isl", ["ISL.REFRESH_EVERY=4"]),
    "IDA": ("train_intra", "quick:ida", "ida", []),
    "DADA": ("train", "quick:daf", "daf", ["TRAIN.DA_METHOD=DADA", "MODEL.NAME=DeepLabv2_depth_DADA"]),
    "AdvEnt": ("train", "quick:daf", "daf", ["TRAIN.DA_METHOD=AdvEnt", "MODEL.NAME=DeepLabv2"]),
    "MinEnt": ("train", "quick:daf", "daf", ["TRAIN.DA_METHOD=MinEnt", "MODEL.NAME=DeepLabv2"]),
    "SourceOnly": ("train", "quick:daf", "daf", ["TRAIN.DA_METHOD=SourceOnly", "MODEL.NAME=DeepLabv2"]),
    "ISL, 2 workers": ("train_isl", "quick:isl", "isl", ["ISL.REFRESH_EVERY=4", "NUM_WORKERS=2"]),
    "IDA, 2 workers": ("train_intra", "quick:ida", "ida", ["NUM_WORKERS=2"]),
}


@dataclass
class Plan:
    """When to kill a run: after `seconds`, or at the n-th file when it is `half` written, `whole` or `renamed`."""

    seconds: float | None = None
    file: int | None = None
    state: str = "half"


@dataclass
class Tally:
    """Result of all kills: attempts, survivals, places of the kills, differing files."""

    tried: int = 0
    survived: int = 0
    killed_at: collections.Counter = field(default_factory=collections.Counter)
    differing: list[str] = field(default_factory=list)


def run_child(script: str, argv: list[str], plan: Plan | None, note: str) -> None:
    """Run a stage script in this process and kill it according to the plan; the place is written to the file `note`."""
    output = os.open(f"{note}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import torch

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of the data workers
    if plan is not None:
        _prepare(plan, Path(note))
    os._exit(__import__(script).main(argv))


def _prepare(plan: Plan, note: Path) -> None:
    main = threading.main_thread().ident

    def kill_at(place: str) -> None:
        note.write_text(place)
        os.kill(os.getpid(), signal.SIGKILL)

    if plan.seconds is not None:

        def wait() -> None:
            time.sleep(plan.seconds or 0)
            kill_at(_place(sys._current_frames()[main or 0]))

        threading.Thread(target=wait, daemon=True).start()
        return
    count = 0
    original_sync, original_replace = os.fsync, os.replace
    # What is on the disk already survives a kill: only bytes after the last fsync of a file can be missing.
    durable = {path.stat().st_ino: path.stat().st_size for path in note.parent.rglob("metrics.jsonl")}

    def sync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == plan.file and plan.state == "half":
            os.ftruncate(handle, (durable.get(os.fstat(handle).st_ino, 0) + os.fstat(handle).st_size) // 2)
            kill_at("a file half-written")
        original_sync(handle)
        durable[os.fstat(handle).st_ino] = os.fstat(handle).st_size

    def replace(source: Any, target: Any) -> None:
        if count == plan.file and plan.state == "whole":
            kill_at(f"before renaming {_kind(target)}")
        original_replace(source, target)
        durable.pop(os.stat(target).st_ino, None)  # renamed over its target: done, and inodes are reused
        if count == plan.file and plan.state == "renamed":
            kill_at(f"after renaming {_kind(target)}")

    os.fsync, os.replace = sync, replace


def _kind(path: Any) -> str:
    name = Path(path).name
    return {"model": "a snapshot", "resum": "resume.pth"}.get(
        name[:5], "a pseudo label" if "pseudo_labels" in str(path) else name
    )


def _place(frame: Any) -> str:
    """The innermost function of this project in a thread's stack."""
    root = str(Path(__file__).parents[2])
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(root) and ".venv" not in file and "tests" not in file:
            return f"in {Path(file).stem}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "while starting"


class KillRunner:
    """Runs and kills scenarios on the tiny domains under `root`, on which all stages have run once."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random, self.tally = root, random.Random(seed), Tally()
        self.context = multiprocessing.get_context("forkserver")
        # torch._dynamo: the first optimizer imports it, which takes seconds
        self.context.set_forkserver_preload(
            [
                *STAGE_SCRIPTS,
                "helpers.tiny_data",
                "torch._dynamo",
                "ida.cli",
                "ida.isl",
                "ida.rank_stage",
                "ida.intra",
                "advent.domain_adaptation.train_UDA",
            ]
        )
        self.log = root / "kills"

    def run(self, script: str, argv: list[str], plan: Plan | None = None) -> int:
        """Exit code of one run; negative if it was killed."""
        self.log.unlink(missing_ok=True)
        process = self.context.Process(target=run_child, args=(script, argv, plan, str(self.log)))
        process.start()
        process.join(120)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{script} {argv} hangs: {self.log}.log")
        return process.exitcode or 0

    def scenario(self, name: str, kills: int) -> None:
        """Kill one scenario `kills` times, resume it each time, compare with the reference whenever it finishes."""
        script, cfg, stage, overrides = SCENARIOS[name]
        suffix = name.replace(", ", "_").replace(" ", "")
        experiment = self.root / f"exp/quick_{suffix}"
        if stage != "daf":  # the later stages start from the results of the earlier ones
            shutil.copytree(self.root / "exp/quick", experiment, dirs_exist_ok=True)
        folder, reference = experiment / stage, experiment / "reference"
        shutil.rmtree(folder, ignore_errors=True)
        argv = tiny_data.command_line(self.root, cfg, f"--exp-suffix={suffix}", "--resume", *LONG, *overrides)
        began = time.monotonic()
        self.run_to_end(script, argv)
        seconds, files = time.monotonic() - began, self._count_files(folder)
        folder.rename(reference)
        left = kills
        while left:
            code = self.run(script, argv, self._plan(seconds, files))
            if code == 0:
                self._compare(name, folder, reference)
                shutil.rmtree(folder)
                continue
            if code != -signal.SIGKILL:
                raise AssertionError(f"{name}: exit code {code}: {Path(f'{self.log}.log').read_text()[-2000:]}")
            left -= 1
            self.tally.tried += 1
            self.tally.killed_at[self.log.read_text()] += 1
            self.tally.survived += 1
        self.run_to_end(script, argv)
        self._compare(name, folder, reference)

    def run_to_end(self, script: str, argv: list[str]) -> None:
        """Run to the end; raises AssertionError on a non-zero exit code."""
        code = self.run(script, argv)
        if code:
            raise AssertionError(f"{script}: exit code {code}: {Path(f'{self.log}.log').read_text()[-2000:]}")

    def _plan(self, seconds: float, files: int) -> Plan:
        if self.random.random() < 0.5:
            return Plan(seconds=self.random.uniform(0.02, seconds))
        return Plan(file=self.random.randint(1, files), state=self.random.choice(["half", "whole", "renamed"]))

    def _count_files(self, folder: Path) -> int:
        """Approximate number of files that a run writes: its final files, and the overwritten resume states."""
        return sum(1 for p in folder.rglob("*") if p.is_file()) + 4

    def _compare(self, name: str, folder: Path, reference: Path) -> None:
        ours, theirs = contents(folder), contents(reference)
        differing = [file for file in sorted(ours.keys() | theirs.keys()) if ours.get(file) != theirs.get(file)]
        if differing:
            self.tally.survived -= 1
            self.tally.differing.append(f"{name}: {', '.join(differing[:5])}")


def contents(folder: Path) -> dict[str, Any]:
    """Bytes of every file, by relative path; JSON records without their clock times."""
    content: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            record = json.loads(path.read_text())
            content[name] = {key: value for key, value in record.items() if key not in TIMES}
        elif path.is_file():
            content[name] = path.read_bytes()
    return content


TIMES = ("time", "continued", "seconds_of_last_start", "waited_for_data")


def prepare(root: Path, run: Callable[[str, list[str]], None]) -> None:
    """Create the tiny domains and run all stages once."""
    tiny_data.make_data(root)
    for script, cfg in zip(STAGE_SCRIPTS, ("quick:daf", "quick:isl", "quick:rank", "quick:ida"), strict=True):
        run(script, tiny_data.command_line(root, cfg))


def kill_scenarios(root: Path, kills: dict[str, int], seed: int, prepared: bool = False) -> Tally:
    """Kill each scenario the given number of times and return the tally."""
    runner = KillRunner(root, seed)
    if not prepared:
        prepare(root, runner.run_to_end)
    for name, count in kills.items():
        runner.scenario(name, count)
    return runner.tally


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    share = {name: options.kills // len(SCENARIOS) for name in SCENARIOS}
    for name in list(SCENARIOS)[: options.kills % len(SCENARIOS)]:
        share[name] += 1
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_scenarios(Path(folder), share, options.seed)
    for where, count in tally.killed_at.most_common():
        print(f"{count:4d}  {where}")
    print(f"{tally.survived} of {tally.tried} kills survived", *tally.differing, sep="\n")
    return 0 if tally.survived == tally.tried and not tally.differing else 1


if __name__ == "__main__":
    sys.exit(main())
