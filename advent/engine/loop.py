"""The training loop: schedules, logging, snapshots and resuming. It does not know which method it runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from advent.domain_adaptation.config import config_digest
from advent.engine.checkpoint import read, save
from advent.engine.learner import Learner
from advent.engine.progress import Progress
from advent.engine.runlog import RESUME, MetricsFile, StageFolder
from advent.errors import CheckpointError, ConfigError, UserError

log = logging.getLogger(__name__)
Batches = Iterator[dict[str, Any]]
STATE = {"iteration", "config", "window", "window_length", "learner"}  # what resume.pth holds


class Loop:
    """Drives a learner from `iteration` (the next one to run) on.

    Everything that an exact continuation needs beside the config lies in `resume.pth`: the learner, the next
    iteration, the running means that were not logged yet. Data order follows from seed and iteration.
    """

    def __init__(self, config: Any, learner: Learner, folder: StageFolder, resume: bool = False) -> None:
        self.config, self.learner, self.folder = config, learner, folder
        train = config.TRAIN
        self.end = train.EARLY_STOP + (1 if learner.method.inclusive else 0)  # first iteration that is not run
        if not train.SAVE_LAST and self.end - 1 < train.SAVE_PRED_EVERY:
            raise ConfigError(
                f"TRAIN.SAVE_PRED_EVERY: {train.SAVE_PRED_EVERY}: iterations 0 to {self.end - 1} reach no multiple of "
                "it, so no snapshot would be left; lower it, or set TRAIN.SAVE_LAST=true"
            )
        self.iteration = 0
        self.digest = config_digest(config)
        # Called after an iteration; what they return (evaluation) goes into the metrics.
        self.hooks: list[Callable[[int], dict[str, float]]] = []
        self._window: dict[str, torch.Tensor] = {}
        self._window_length = 0
        self.metrics = MetricsFile(folder.path / "metrics.jsonl")
        if resume:
            self._restore()
        self.metrics.truncate(self.iteration)
        self._board = SummaryWriter(str(folder.path / "tensorboard")) if train.TENSORBOARD else None

    def run(self, source: Batches, target: Batches | None = None, until: int | None = None) -> None:
        """Run iterations up to, not including, `until` (default: the method's last)."""
        until = self.end if until is None else min(until, self.end)
        with Progress(self.config.STAGE.NAME, self.end, self.iteration) as progress:
            while self.iteration < until:
                losses = self.learner.update(self.iteration, next(source), next(target) if target else None)
                note = self._log(self.iteration, losses)
                for hook in self.hooks:
                    self._record(self.iteration, hook(self.iteration))
                self.iteration += 1
                self._save(self.iteration - 1)
                progress.step(note)

    def _log(self, iteration: int, losses: dict[str, torch.Tensor]) -> str:
        """Add to the running means on the device; every LOG_EVERY iterations fetch, write and clear them."""
        for name, loss in losses.items():
            self._window[name] = self._window[name] + loss if name in self._window else loss
        self._window_length += 1
        if (iteration + 1) % self.config.TRAIN.LOG_EVERY and iteration + 1 < self.end:
            return ""
        means = torch.stack(list(self._window.values())) / self._window_length
        values = dict(zip(self._window, means.tolist(), strict=True))
        self._window, self._window_length = {}, 0
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise UserError(
                f"{self.folder.path}: iteration {iteration}: {', '.join(bad)} not finite; earlier snapshots are kept; "
                "lower TRAIN.LEARNING_RATE or check the data"
            )
        self._record(iteration, values | self.learner.rates(iteration))
        return " ".join(f"{name} {value:.3g}" for name, value in values.items())

    def _record(self, iteration: int, values: dict[str, float]) -> None:
        if not values:
            return
        self.metrics.append({"iteration": iteration, **values})
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, iteration)

    def _save(self, iteration: int) -> None:
        """`model_i` is saved after iteration i, for every multiple of SAVE_PRED_EVERY but 0."""
        train = self.config.TRAIN
        scheduled = iteration and iteration % train.SAVE_PRED_EVERY == 0
        if not scheduled and not (train.SAVE_LAST and iteration + 1 == self.end):
            return
        self.folder.save_snapshot(iteration, self.learner.net, train.KEEP)
        state = {
            "iteration": self.iteration,
            "config": self.digest,
            "window": self._window,
            "window_length": self._window_length,
            "learner": self.learner.state_dict(),
        }
        save(self.folder.path / RESUME, state)

    def _restore(self) -> None:
        path = self.folder.path / RESUME
        if not path.is_file():
            log.info("%s: nothing to resume, starting at iteration 0", self.folder.path)
            return
        state = read(path)
        if not isinstance(state, dict) or not state.keys() >= STATE:
            raise CheckpointError(f"{path}: not a resume state of this project; remove it or start with --overwrite")
        if state["config"] != self.digest:
            raise ConfigError(
                f"{path}: was written under another config (see config.yml beside it); resume with that one, or start "
                "anew with --overwrite or --exp-suffix NAME"
            )
        self.learner.load_state_dict(state["learner"])
        self.iteration = state["iteration"]
        self._window = {name: value.to(self.learner.device) for name, value in state["window"].items()}
        self._window_length = state["window_length"]
        log.info("%s: resumed at iteration %d", self.folder.path, self.iteration)
