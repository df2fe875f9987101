"""Stage 2b, intra-domain adaptation: the easy half of the target is the source, the hard half the target."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from advent.build import target_data
from advent.checkpoints.io import digest
from advent.checkpoints.provenance import FILE as PROVENANCE
from advent.checkpoints.provenance import names_digest, read_provenance, require_match
from advent.checkpoints.run_dir import RunDir, initial_checkpoint
from advent.config.loading import stage_command
from advent.config.schema import Config
from advent.dataset.file_lists import read_list
from advent.dataset.pseudo_labels import PSEUDO_DEPTH_SUFFIX
from advent.errors import ConfigError, MissingStage
from advent.methods.registry import find_method
from advent.methods.steps import Method
from advent.training.stage import create_trainer, is_resuming, resolve_seed, run_to_end
from ida.pseudo_labels import writes_depth
from ida.rank_stage import EASY, HARD, MASKS

log = logging.getLogger(__name__)


def intra_method(config: Config) -> Method:
    """TRAIN.DA_METHOD as IDA runs it: discriminator losses halved, iterations 0..EARLY_STOP-1.

    `AdvEnt` is the variant of the authors' code. `DAF` is the variant in the paper's figure: depth in the map, no depth
    loss, since the target has no depth.
    """
    method = find_method(config)
    if not method.adversarial:
        raise ConfigError(
            f"TRAIN.DA_METHOD: {method.name} is not adversarial; IDA runs AdvEnt (authors' code) or DAF (figure)"
        )
    return replace(method, half_disc_loss=True, include_last_iter=False)


def intra_stage(config: Config, *, resume: bool = False, overwrite: bool = False) -> RunDir:
    """Train easy -> hard with the pseudo labels of the ranking stage."""
    method = intra_method(config)
    ranking = ranking_folder(config)
    splits = {"easy": ranking.path / EASY, "hard": ranking.path / HARD}
    for file in splits.values():
        if not file.is_file():
            raise MissingStage(f"{file}: no ranking yet. Run: {_ranking_command(config)}")
    start = None if is_resuming(config, resume) else initial_checkpoint(config)
    check_ranking(config, ranking, start)
    names = {half: read_list(file) for half, file in splits.items()}
    masks, with_depth = ranking.path / MASKS, writes_depth(config, "RANK")
    if with_depth and not any(masks.rglob(f"*{PSEUDO_DEPTH_SUFFIX}")):
        raise MissingStage(
            f"{masks}: the ranking wrote no depth, which RANK.PSEUDO_DEPTH: true trains on. Rank again: "
            f"{_ranking_command(config)} RANK.PSEUDO_DEPTH=true"
        )
    easy = target_data(config, names["easy"], masks, config.TRAIN.INPUT_SIZE_SOURCE, with_depth)
    hard = target_data(config, names["hard"])
    resolve_seed(config, resume)
    data = {"source": easy, "target": hard}
    with create_trainer(
        config, method, data=data, resume=resume, overwrite=overwrite, start=start, inputs=splits
    ) as trainer:
        run_to_end(trainer, easy, hard)
    return trainer.run_dir


def ranking_folder(config: Config) -> RunDir:
    """Folder of splits and pseudo labels: STAGE.RANKING_FROM, else the ranking stage of the same experiment."""
    if config.STAGE.RANKING_FROM:
        return RunDir(Path(config.STAGE.RANKING_FROM))
    return RunDir.of(config, config.STAGE.RANKING)


def check_ranking(config: Config, ranking: RunDir, start: Path | None) -> None:
    """Check a ranking's provenance: finished, unchanged, same images, made with the network that IDA starts from.

    `start` is None for a resumed run, whose own record names its start. A ranking without a record (an external one)
    only logs a warning. Raises StaleInput, MissingStage.
    """
    record, facts, check = read_provenance(ranking.path), ranking.done_record(), config.STAGE.CHECK_PROVENANCE
    if record is None:
        log.warning("%s: has no %s, so it is unknown which network made this ranking", ranking.path, PROVENANCE)
        return
    if facts is None:
        raise MissingStage(f"{ranking.path}: the ranking was not finished. Run: {_ranking_command(config)}")
    again = f"rank again ({_ranking_command(config)})"
    for file in (EASY, HARD):
        require_match(
            facts[file], digest(ranking.path / file), f"{ranking.path / file}: was changed since", again, check
        )
    images = names_digest(target_data(config).names)
    message = f"{ranking.path}: ranks other images than {config.TARGET} now has"
    require_match(record["data"]["target"]["sha256"], images, message, again, check)
    made = record["inputs"]["start"]
    if start is None:
        own = read_provenance(RunDir.of(config).path)
        began = own["inputs"]["start"] if own else made
    else:
        began = {"path": str(start), "sha256": digest(start)}
    message = (
        f"{ranking.path}: was made with {made['path']}, but this stage starts from another network, {began['path']}"
    )
    fix = f"{again}, or start from that network with TRAIN.RESTORE_FROM={made['path']}"
    require_match(made["sha256"], began["sha256"], message, fix, check)


def _ranking_command(config: Config) -> str:
    return stage_command(config, config.STAGE.RANKING)
