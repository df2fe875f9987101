"""Stage 2b, intra-domain adaptation: the easy half of the target is the source, the hard half the target."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from advent.config.loading import stage_command
from advent.dataset.listing import read_list
from advent.domain_adaptation.steps import Method
from advent.domain_adaptation.train_UDA import run_to_end
from advent.engine.build import continues, open_run, settle_seed, target_data
from advent.engine.checkpoint import digest
from advent.engine.provenance import FILE as PROVENANCE
from advent.engine.provenance import check_same, names_digest, recorded
from advent.engine.registry import find_method
from advent.engine.runlog import StageFolder, starting_snapshot
from advent.errors import ConfigError, MissingStage
from ida.rank_stage import EASY, HARD, MASKS

log = logging.getLogger(__name__)


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
    ranking = ranking_folder(config)
    splits = {"easy": ranking.path / EASY, "hard": ranking.path / HARD}
    for file in splits.values():
        if not file.is_file():
            raise MissingStage(f"{file}: no ranking yet. Run: {_ranking_command(config)}")
    start = None if continues(config, resume) else starting_snapshot(config)
    check_ranking(config, ranking, start)
    names = {half: read_list(file) for half, file in splits.items()}
    easy = target_data(config, names["easy"], ranking.path / MASKS, size=config.TRAIN.INPUT_SIZE_SOURCE)
    hard = target_data(config, names["hard"])
    settle_seed(config, resume)
    data = {"source": easy, "target": hard}
    with open_run(
        config, method, data=data, resume=resume, overwrite=overwrite, start=start, inputs=splits
    ) as loop:  # fmt: skip
        run_to_end(loop, easy, hard)
    return loop.folder


def ranking_folder(config: Any) -> StageFolder:
    """Where the splits and pseudo labels lie: STAGE.RANKING_FROM, else the ranking stage of the same experiment."""
    if config.STAGE.RANKING_FROM:
        return StageFolder(Path(config.STAGE.RANKING_FROM))
    return StageFolder.of(config, config.STAGE.RANKING)


def check_ranking(config: Any, ranking: StageFolder, start: Path | None) -> None:
    """Refuse a ranking that is unfinished, edited, of other images, or made with another network than IDA's start.

    `start` is None for a continued run, whose record tells what it started from. A ranking without a record came
    from elsewhere: that is only said. Raises StaleInput, MissingStage.
    """
    record, facts, check = recorded(ranking.path), ranking.finished(), config.STAGE.CHECK_PROVENANCE
    if record is None:
        log.warning("%s: has no %s, so nobody knows which network made this ranking", ranking.path, PROVENANCE)
        return
    if facts is None:
        raise MissingStage(f"{ranking.path}: the ranking was not finished. Run: {_ranking_command(config)}")
    again = f"rank again ({_ranking_command(config)})"
    for file in (EASY, HARD):
        check_same(facts[file], digest(ranking.path / file), f"{ranking.path / file}: was changed since", again, check)
    images = names_digest(target_data(config).names)
    what = f"{ranking.path}: ranks other images than {config.TARGET} now has"
    check_same(record["data"]["target"]["sha256"], images, what, again, check)
    made = record["inputs"]["start"]
    if start is None:
        own = recorded(StageFolder.of(config).path)
        began = own["inputs"]["start"] if own else made
    else:
        began = {"path": str(start), "sha256": digest(start)}
    what = f"{ranking.path}: was made with {made['path']}, this stage starts from {began['path']}, another network"
    mend = f"{again}, or start from that one with TRAIN.RESTORE_FROM={made['path']}"
    check_same(made["sha256"], began["sha256"], what, mend, check)


def _ranking_command(config: Any) -> str:
    return stage_command(config, config.STAGE.RANKING)
