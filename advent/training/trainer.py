"""Training loop: schedules, logging, snapshots and resuming; independent of the method."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from advent.build import with_recorded_accumulation
from advent.checkpoints.io import read, save
from advent.checkpoints.run_dir import RESUME, MetricsFile, RunDir
from advent.config.loading import config_digest
from advent.config.schema import Config
from advent.errors import CheckpointError, ConfigError, NotFinite
from advent.runtime import distributed, signals
from advent.runtime.device import rng_state, set_rng_state
from advent.runtime.lock import FolderLock
from advent.runtime.progress import Progress
from advent.training.learner import Learner
from advent.training.metric_buffer import MetricBuffer, NonFinite
from advent.training.tensorboard import ImageLogger, TensorBoardWriter

log = logging.getLogger(__name__)
Batches = Iterator[dict[str, Any]]


class Trainer:
    """Runs a learner's iterations from `iteration` (the next one) on; holds the run directory's lock until `close`.

    `resume.pth` stores everything that an exact resume needs beside the config; data order follows from seed and
    iteration. `data`: role -> digest of each data set's file names; a run resumes only on the same files.
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
                f"TRAIN.SAVE_PRED_EVERY: {train.SAVE_PRED_EVERY}: iterations 0 to {self.end - 1} contain no multiple "
                "of it, so no snapshot would be saved; lower it, or set TRAIN.SAVE_LAST=true"
            )
        self.iteration = 0
        self.digest = config_digest(config)
        self.batch_parts = (distributed.world_size(), train.ACCUMULATE)  # (processes, ACCUMULATE) at the run's start
        # Called after an iteration; their return values (evaluation scores) are written to the metrics.
        self.hooks: list[Callable[[int], dict[str, float]]] = []
        # Called after an iteration when TensorBoard is on; they write images only.
        self.image_loggers: list[ImageLogger] = []
        self.notes: dict[str, str] = {}  # facts that a stage stores for its resume
        self._hooks_due = False
        self._buffer = MetricBuffer()
        self._skipped = 0
        self.waited = 0.0  # seconds spent waiting for data since this start; the metrics hold no clock times
        self._tensorboard: TensorBoardWriter | None = None
        self._saved: list[int] = []  # iterations of this run's snapshots, ascending; TRAIN.KEEP removes from these
        self.metrics = MetricsFile(run_dir.path / "metrics.jsonl")
        self._lock = FolderLock(run_dir.path).acquire()
        try:
            if resume:
                self._restore()
            else:
                run_dir.prepare(overwrite)
            distributed.barrier()  # rank 0 has taken the lock and prepared the folder
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
        """Whether all iterations and hooks have run."""
        return self.iteration >= self.end and not self._hooks_due

    def close(self) -> None:
        """Close TensorBoard and release the run directory's lock."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        self._lock.release()

    def run(self, source: Batches, target: Batches | None = None, until: int | None = None) -> None:
        """Run iterations up to, not including, `until` (default: the method's last).

        On a stop signal it finishes the iteration, writes the resume state and raises Interrupted. Raises NotFinite
        when more iterations were skipped than TRAIN.SKIP_NONFINITE allows.
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
                # A CPU all-reduce: a signal to any process stops all of them after the same iteration.
                if signal := distributed.all_reduce_max_int(signals.pending_signal()):
                    self.checkpoint()
                    raise signals.Interrupted(signal)

    def _fetch(self, source: Batches, target: Batches | None) -> list[list[dict[str, Any]]]:
        """The next ACCUMULATE batches of each domain; adds the waiting time to `waited`."""
        started = time.monotonic()
        domains = [source, target] if target else [source]
        batches = [[next(domain) for _ in range(self.config.TRAIN.ACCUMULATE)] for domain in domains]
        self.waited += time.monotonic() - started
        return batches

    def _iterate(self, source: Sequence[dict[str, Any]], target: Sequence[dict[str, Any]] = ()) -> str:
        """Run one iteration, its log and its snapshot; returns the losses for the progress bar, if fetched."""
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
        """Run the hooks of the last iteration and write their values to the metrics.

        Hooks may take minutes, so a signal interrupts them at once, and the resumed run runs them again. With several
        processes the signal is deferred: the other processes take part in the hooks and may not have received it.
        """
        if not self._hooks_due:
            return
        try:
            with signals.defer_signals(distributed.world_size() > 1):
                results = [hook(self.iteration - 1) for hook in self.hooks]
        except signals.Interrupted:
            self.checkpoint()
            raise
        self._hooks_due = False
        for values in results:
            self._record(self.iteration - 1, values)

    def _log_images(self) -> None:
        if self._tensorboard is not None:
            for log_images in self.image_loggers:
                log_images(self._tensorboard, self.iteration - 1)

    def _log(self) -> str:
        """Every LOG_EVERY iterations and after the last one, fetch the metric buffer, write its means and clear it."""
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
            self._refuse([replace(skip, files=_of_all(skip.files)) for skip in summary.skipped])
        return " ".join(f"{name} {value:.3g}" for name, value in summary.means.items())

    def _refuse(self, skipped: list[NonFinite]) -> None:
        for skip in skipped:
            log.warning("%s: skipped %s", self.run_dir.path, skip)
        allowed = self.config.TRAIN.SKIP_NONFINITE
        if self._skipped > allowed:
            raise NotFinite(
                f"{self.run_dir.path}: {skipped[0]}; {self._skipped} iterations skipped, TRAIN.SKIP_NONFINITE allows "
                f"{allowed}: check these images, lower TRAIN.LEARNING_RATE, or raise TRAIN.SKIP_NONFINITE and continue "
                "with --resume (skipped iterations change no weights)"
            )

    def _record(self, iteration: int, values: Mapping[str, float]) -> None:
        if not values:
            return
        self.metrics.append({"iteration": iteration, **values})
        if self._tensorboard is not None:
            self._tensorboard.scalars(iteration, values)

    def _save(self, iteration: int) -> None:
        """Save `model_i` after iteration i: every multiple of SAVE_PRED_EVERY but 0, and the last with SAVE_LAST."""
        train = self.config.TRAIN
        scheduled = iteration and iteration % train.SAVE_PRED_EVERY == 0
        if not scheduled and not (train.SAVE_LAST and iteration + 1 == self.end):
            return
        # The resume state is written first. If the run is killed in between, the resumed run writes the snapshot
        # (`_sync_snapshots`), while a snapshot without a resume state would look like another run's result.
        self._saved.append(iteration)
        self.checkpoint()
        self._sync_snapshots()

    def _sync_snapshots(self) -> None:
        """Match the snapshots on disk to the resume state: write the newest, remove those beyond TRAIN.KEEP."""
        if not distributed.is_main():
            return
        if self._saved and self._saved[-1] == self.iteration - 1:
            self.run_dir.save_snapshot(self._saved[-1], self.learner.scored)
        keep = self.config.TRAIN.KEEP
        for iteration in self._saved[:-keep] if keep else []:
            (self.run_dir.path / f"model_{iteration}.pth").unlink(missing_ok=True)

    def checkpoint(self) -> None:
        """Write `resume.pth`, from which the run resumes exactly."""
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
        recorded = with_recorded_accumulation(self.config, self.batch_parts, path)
        if not self.run_dir.has_config(recorded, state["config"]):
            raise ConfigError(
                f"{path}: was written with another config (see config.yml beside it); resume with that one, or start "
                "anew with --overwrite or --exp-suffix NAME"
            )
        for name, digest in self.data.items():
            if state["data"].get(name) != digest:
                raise ConfigError(
                    f"{path}: the {name}'s images differ from those this run started with; restore them, or start "
                    "anew with --overwrite or --exp-suffix NAME"
                )
        self.learner.load_state_dict(state["learner"])
        self.iteration, self._hooks_due = state["iteration"], state["hooks_due"]
        self._buffer = MetricBuffer.from_state(state["window"], self.learner.device)
        self._skipped, self._saved, self.notes = state["skipped"], state["saved"], state["notes"]
        self.digest = config_digest(recorded)
        self.metrics.truncate(state["metrics"])
        rng = [state["rng"], *state.get("rng_of_others", [])]
        if distributed.rank() < len(rng):
            set_rng_state(self.learner.device, rng[distributed.rank()])
        self._sync_snapshots()
        log.info("%s: resumed at iteration %d", self.run_dir.path, self.iteration)


def _of_all(files: list[str]) -> list[str]:
    """File names of all processes, without duplicates."""
    return list(dict.fromkeys(name for part in distributed.all_gather(files) for name in part))


# Required keys of resume.pth.
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
