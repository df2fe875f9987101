"""Stage 2b, intra-domain adaptation: the easy half of the target is the source, the hard half the target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from advent.dataset.listing import read_list
from advent.domain_adaptation.steps import Method
from advent.domain_adaptation.train_UDA import draw_seed, run_to_end
from advent.engine.build import open_run, target_data
from advent.engine.registry import find_method
from advent.engine.runlog import StageFolder, starting_snapshot
from advent.errors import ConfigError, MissingStage
from ida.rank_stage import EASY, HARD, MASKS


def intra_method(config: Any) -> Method:
    """TRAIN.DA_METHOD as IDA runs it: discriminator losses halved, iterations 0..EARLY_STOP-1.

    `AdvEnt` is the release's variant; `DAF` is the one that the paper's figure shows (depth in the map, no depth
    loss, since the target has no depth).
    """
    method = find_method(config)
    if not method.adversarial:
        raise ConfigError(f"TRAIN.DA_METHOD: {method.name} has no adversary; IDA runs AdvEnt (release) or DAF (figure)")
    return replace(method, halve=True, inclusive=False)


def intra_stage(config: Any, *, resume: bool = False, overwrite: bool = False) -> StageFolder:
    """Train easy -> hard with the pseudo labels of the ranking stage."""
    method = intra_method(config)
    ranking = StageFolder.of(config, config.STAGE.RANKING).path
    splits = [ranking / EASY, ranking / HARD]
    for file in splits:
        if not file.is_file():
            raise MissingStage(f"{file}: no ranking yet. Run: python entropy.py --cfg {config.STAGE.CONFIG_RANKING}")
    start = starting_snapshot(config)
    easy_names, hard_names = (read_list(file) for file in splits)
    easy = target_data(config, easy_names, ranking / MASKS, size=config.TRAIN.INPUT_SIZE_SOURCE)
    hard = target_data(config, hard_names)
    draw_seed(config)
    loop = open_run(config, method, resume=resume, overwrite=overwrite, start=start, inputs=splits)
    run_to_end(loop, easy, hard)
    return loop.folder
