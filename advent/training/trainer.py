"""The training loop: schedules, logging, snapshots and resuming. It does not know which method it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from advent.checkpoints.io import read, save
from advent.checkpoints.run_dir import RESUME, MetricsFile, RunDir
from advent.config.loading import config_digest
from advent.config.schema import Config
from advent.errors import CheckpointError, ConfigError, NotFinite
from advent.runtime import distributed, signals
from advent.runtime.device import rng_state, set_rng_state
from advent.runtime.lock import FolderLock
from advent.runtime.progress import Progress
from advent.training.batch_size import with_recorded_accumulation
from advent.training.learner import Learner
from advent.training.metric_buffer import MetricBuffer, NonFinite
from advent.training.tensorboard import ImageLogger, TensorBoardWriter

log = logging.getLogger(__name__)
Batches = Iterator[dict[str, Any]]


class Trainer:
    """Drives a learner from `iteration` (the next one to run) on; holds the folder's lock until `close`.

    Everything that an exact continuation needs beside the config lies in `resume.pth`; data order follows from seed
    and iteration. `data`: name -> digest of each data set's file names; a run is only continued on the same files.
    """

    def __init__(
        self,
        config: Config,
        learner: Learner,
        run_dir: RunDir,
        *,
        resume: bool = False,
        overwrite: bool = False,
        data: Mapping[str, str] | None = None,
    ) -> None:
        self.config, self.learner, self.run_dir = config, learner, run_dir
        self.data = dict(data or {})
        train = config.TRAIN
        self.end = train.EARLY_STOP + (1 if learner.method.include_last_iter else 0)  # first iteration that is not run
        if not train.SAVE_LAST and self.end - 1 < train.SAVE_PRED_EVERY:
            raise ConfigError(
                f"TRAIN.SAVE_PRED_EVERY: {train.SAVE_PRED_EVERY}: iterations 0 to {self.end - 1} reach no multiple of "
                "it, so no snapshot would be left; lower it, or set TRAIN.SAVE_LAST=true"
            )
        self.iteration = 0
        self.digest = config_digest(config)
        self.batch_parts = (distributed.world_size(), train.ACCUMULATE)  # of a batch, as the run began
        # Called after an iteration; what they return (evaluation) goes into the metrics.
        self.hooks: list[Callable[[int], dict[str, float]]] = []
        self.image_loggers: list[
            ImageLogger
        ] = []  # called after an iteration when there is a board; they leave nothing else behind
        self.notes: dict[str, str] = {}  # what a stage wants to find again when it continues
        self._hooks_due = False
        self._buffer = MetricBuffer()
        self._skipped = 0
        self.waited = 0.0  # seconds for data, since this start; of clock times nothing goes into the metrics
        self._tensorboard: TensorBoardWriter | None = None
        self._saved: list[int] = []  # iterations of our snapshots, ascending: what TRAIN.KEEP may remove
        self.metrics = MetricsFile(run_dir.path / "metrics.jsonl")
        self._lock = FolderLock(run_dir.path).acquire()
        try:
            if resume:
                self._restore()
            else:
                run_dir.prepare(overwrite)
            distributed.barrier()  # rank 0 has the lock, and has made room
        except BaseException:
            self.close()
            raise
        run_dir.remove_leftovers()
        learner.broadcast_weights()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return self.iteration >= self.end and not self._hooks_due

    def close(self) -> None:
        """Give the folder's lock back."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        self._lock.release()

    def run(self, source: Batches, target: Batches | None = None, until: int | None = None) -> None:
        """Run iterations up to, not including, `until` (default: the method's last).

        Asked to stop, it finishes the iteration, saves and raises Stopped. Raises NotFinite when more iterations
        were skipped than TRAIN.SKIP_NONFINITE allows.
        """
        until = self.end if until is None else min(until, self.end)
        if self.config.TRAIN.TENSORBOARD and self._tensorboard is None and distributed.is_main():
            self._tensorboard = TensorBoardWriter(self.run_dir.path / "tensorboard", self.iteration)
        with Progress(self.config.STAGE.NAME, self.end, self.iteration) as progress, signals.defer_signals():
            while self.iteration < until or self._hooks_due:
                note = "" if self._hooks_due else self._iterate(*self._fetch(source, target))
                self._run_hooks()
                self._log_images()
                progress.step(note)
                # All processes agree, by way of their CPUs: whoever was told to stop stops all after one iteration.
                if signal := distributed.all_reduce_max_int(signals.pending_signal()):
                    self.checkpoint()
                    raise signals.Interrupted(signal)

    def _fetch(self, source: Batches, target: Batches | None) -> list[list[dict[str, Any]]]:
        """The next batches of each domain, and how long they were waited for."""
        began = time.monotonic()
        domains = [source, target] if target else [source]
        batches = [[next(domain) for _ in range(self.config.TRAIN.ACCUMULATE)] for domain in domains]
        self.waited += time.monotonic() - began
        return batches

    def _iterate(self, source: Sequence[dict[str, Any]], target: Sequence[dict[str, Any]] = ()) -> str:
        """One iteration with all that it leaves on disk; returns the losses to show, if they were fetched."""
        values = self.learner.update(self.iteration, source, target or None)
        files = [f"source {name}" for batch in source for name in batch.get("name", ())]
        files += [f"target {name}" for batch in target for name in batch.get("name", ())]
        self._buffer.add(self.iteration, values, files)
        note = self._log()
        self.iteration += 1
        self._hooks_due = bool(self.hooks)
        self._save(self.iteration - 1)
        return note

    def _run_hooks(self) -> None:
        """Hooks may take minutes: a signal acts at once there, and they are run again when the run continues.

        But where other processes take part in them, since they may not have been told.
        """
        if not self._hooks_due:
            return
        try:
            with signals.defer_signals(distributed.world_size() > 1):
                found = [hook(self.iteration - 1) for hook in self.hooks]
        except signals.Interrupted:
            self.checkpoint()
            raise
        self._hooks_due = False
        for values in found:
            self._record(self.iteration - 1, values)

    def _log_images(self) -> None:
        if self._tensorboard is not None:
            for view in self.image_loggers:
                view(self._tensorboard, self.iteration - 1)

    def _log(self) -> str:
        """Every LOG_EVERY iterations, and after the last one, fetch the window, write its means and clear it."""
        if (self.iteration + 1) % self.config.TRAIN.LOG_EVERY and self.iteration + 1 < self.end:
            return ""
        summary = self._buffer.fetch()
        self._buffer = MetricBuffer()
        self._skipped += len(summary.skipped)
        counted = {"skipped": self._skipped} if self._skipped else {}
        self._record(self.iteration, summary.means | self.learner.rates(self.iteration) | counted)
        if self._tensorboard is not None:
            self._tensorboard.data_wait(self.iteration, self.waited)
        if summary.skipped:
            self._refuse([replace(one, files=_of_all(one.files)) for one in summary.skipped])
        return " ".join(f"{name} {value:.3g}" for name, value in summary.means.items())

    def _refuse(self, skipped: list[NonFinite]) -> None:
        for one in skipped:
            log.warning("%s: skipped %s", self.run_dir.path, one)
        allowed = self.config.TRAIN.SKIP_NONFINITE
        if self._skipped > allowed:
            raise NotFinite(
                f"{self.run_dir.path}: {skipped[0]}; {self._skipped} iterations skipped, TRAIN.SKIP_NONFINITE allows "
                f"{allowed}: look at these images, lower TRAIN.LEARNING_RATE, or raise it and continue with --resume "
                "(weights and snapshots are those before)"
            )

    def _record(self, iteration: int, values: Mapping[str, float]) -> None:
        if not values:
            return
        self.metrics.append({"iteration": iteration, **values})
        if self._tensorboard is not None:
            self._tensorboard.scalars(iteration, values)

    def _save(self, iteration: int) -> None:
        """`model_i` is saved after iteration i, for every multiple of SAVE_PRED_EVERY but 0."""
        train = self.config.TRAIN
        scheduled = iteration and iteration % train.SAVE_PRED_EVERY == 0
        if not scheduled and not (train.SAVE_LAST and iteration + 1 == self.end):
            return
        # The resume state comes first: killed in between, the continued run makes up for the rest (`_sync_snapshots`), while
        # a snapshot without one would look like somebody else's.
        self._saved.append(iteration)
        self.checkpoint()
        self._sync_snapshots()

    def _sync_snapshots(self) -> None:
        """Bring the snapshots on disk to what the resume state says: write the newest, remove those beyond KEEP."""
        if not distributed.is_main():
            return
        if self._saved and self._saved[-1] == self.iteration - 1:
            self.run_dir.save_snapshot(self._saved[-1], self.learner.net)
        keep = self.config.TRAIN.KEEP
        for iteration in self._saved[:-keep] if keep else []:
            (self.run_dir.path / f"model_{iteration}.pth").unlink(missing_ok=True)

    def checkpoint(self) -> None:
        """Write `resume.pth`: from here a run continues as if it had never stopped."""
        rng = distributed.all_gather(rng_state(self.learner.device))
        if not distributed.is_main():
            return
        state = {
            "iteration": self.iteration,
            "parts": self.batch_parts,
            "config": self.digest,
            "data": self.data,
            "metrics": self.metrics.flush(),
            "notes": self.notes,
            "hooks_due": self._hooks_due,
            "window": self._buffer.state_dict(),
            "skipped": self._skipped,
            "saved": self._saved,
            "learner": self.learner.state_dict(),
            "rng": rng[0],
            "rng_of_others": rng[1:],
        }
        save(self.run_dir.path / RESUME, state)

    def _restore(self) -> None:
        path = self.run_dir.path / RESUME
        if not path.is_file():
            self.run_dir.refuse_results_without_state()
            log.info("%s: nothing to resume, starting at iteration 0", self.run_dir.path)
            self.metrics.truncate(0)
            return
        state = read(path)
        if not isinstance(state, dict) or not state.keys() >= STATE:
            raise CheckpointError(f"{path}: not a resume state of this project; remove it or start with --overwrite")
        self.batch_parts = tuple(state.get("parts", (1, 1)))
        began = with_recorded_accumulation(self.config, self.batch_parts, path)
        if not self.run_dir.has_config(began, state["config"]):
            raise ConfigError(
                f"{path}: was written under another config (see config.yml beside it); resume with that one, or start "
                "anew with --overwrite or --exp-suffix NAME"
            )
        for name, digest in self.data.items():
            if state["data"].get(name) != digest:
                raise ConfigError(
                    f"{path}: the {name}'s images are other ones than when this run began; put them back, or start "
                    "anew with --overwrite or --exp-suffix NAME"
                )
        self.learner.load_state_dict(state["learner"])
        self.iteration, self._hooks_due = state["iteration"], state["hooks_due"]
        self._buffer = MetricBuffer.from_state(state["window"], self.learner.device)
        self._skipped, self._saved, self.notes = state["skipped"], state["saved"], state["notes"]
        self.digest = config_digest(began)
        self.metrics.truncate(state["metrics"])
        rng = [state["rng"], *state.get("rng_of_others", [])]
        if distributed.rank() < len(rng):
            set_rng_state(self.learner.device, rng[distributed.rank()])
        self._sync_snapshots()
        log.info("%s: resumed at iteration %d", self.run_dir.path, self.iteration)


def _of_all(files: list[str]) -> list[str]:
    """The images of all processes."""
    return list(dict.fromkeys(name for part in distributed.all_gather(files) for name in part))


# What resume.pth holds.
STATE = {
    "iteration",
    "config",
    "data",
    "metrics",
    "notes",
    "hooks_due",
    "window",
    "skipped",
    "saved",
    "learner",
    "rng",
}
