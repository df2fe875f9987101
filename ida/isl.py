"""Stage 1, iterative self-learning: cross entropy on the target's own thresholded pseudo labels, remade on the way."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from advent.domain_adaptation.steps import Method, supervised_step
from advent.domain_adaptation.train_UDA import draw_seed, finish, run_to_end
from advent.engine.build import open_run, target_data
from advent.engine.loop import Loop
from advent.engine.runlog import StageFolder, starting_snapshot
from advent.errors import DataError
from advent.utils.serialization import write_json
from ida.pseudo_labels import label_dataset

log = logging.getLogger(__name__)


def isl_stage(config: Any, *, resume: bool = False, overwrite: bool = False) -> StageFolder:
    """Train on pseudo labels of the target, remade before iterations 0, REFRESH + 1, 2 * REFRESH + 1, ..."""
    start = starting_snapshot(config)
    target = target_data(config)
    draw_seed(config)
    loop = open_run(
        config, Method("ISL", supervised_step, inclusive=True, multi_level=True), resume=resume, overwrite=overwrite,
        start=start,
    )  # fmt: skip
    started = time.monotonic()
    while loop.iteration < loop.end:
        first, last = current_round(loop.iteration, config.ISL.REFRESH_EVERY)
        labels = loop.folder.path / "pseudo_labels" / f"round_{first}"
        if not (labels / "complete.json").exists() or loop.iteration == first:
            relabel(loop, target, labels)
        run_to_end(loop, target_data(config, label_dir=labels), None, until=last, final=False)
    finish(loop, time.monotonic() - started)
    return loop.folder


def current_round(iteration: int, refresh_every: int) -> tuple[int, int]:
    """(first iteration, first of the next round): the release labels at 0, 10,001, 20,001, ... for 10,000."""
    index = max(0, iteration - 1) // refresh_every
    return (index * refresh_every + 1 if index else 0), (index + 1) * refresh_every + 1


def relabel(loop: Loop, target: Any, folder: Path) -> None:
    """Make one round of pseudo labels with the network as it is; the folder appears whole, older rounds go."""
    if folder.exists():
        shutil.rmtree(folder)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    share = label_dataset(loop.learner.net, target, loop.config, loop.learner.device, unfinished, folder.name)
    log.info("%s: %.1f %% of the pixels keep a label", folder, 100 * share)
    if share == 0:
        raise DataError(
            f"{folder}: no pixel reaches ISL.THRESHOLD {loop.config.ISL.THRESHOLD}; lower it, or start "
            "from a better network"
        )
    facts = {"iteration": loop.iteration, "threshold": loop.config.ISL.THRESHOLD, "kept": share, "images": len(target)}
    write_json(unfinished / "complete.json", facts)
    unfinished.rename(folder)
    for other in folder.parent.glob("round_*"):
        if other != folder:
            shutil.rmtree(other)
