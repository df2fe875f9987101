"""Command-line interface of the stage scripts: options, configs, commands, with daf's methods registered."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from advent import cli
from advent.cli import config_from_args, make_parser, normalize_mode, overrides_from_args, quoted
from advent.config.schema import Config
from advent.errors import ConfigError
from advent.evaluation.results import row_name
from advent.evaluation.stage import evaluate_stage, predict_stage
from advent.runtime import distributed
from advent.training.stage import train_stage
from advent.utils.tables import markdown_table, results_table
from daf.depth_metrics import evaluate_depth
from daf.methods import register
from daf.model_card import CARD, documented_miou
from ida.intra import intra_stage
from ida.isl import isl_stage
from ida.pipeline.stage import Stage, stages_of
from ida.rank_stage import rank_stage

log = logging.getLogger(__name__)

__all__ = [
    "config_from_args",
    "evaluation_command",
    "intra_stage",
    "isl_stage",
    "make_parser",
    "overrides_from_args",
    "ranking_command",
    "run_cli",
    "stages_from_args",
    "train_stage",
    "training_command",
]


def run_cli(prog: str, body: Callable[[], None], argv: Sequence[str] | None = None, resumes: bool = False) -> int:
    """advent.cli.run_cli with daf's methods, networks and depth formats registered first."""
    register()
    return cli.run_cli(prog, body, argv, resumes)


def training_command(prog: str, text: str, stage: Callable[..., object], argv: Sequence[str] | None = None) -> int:
    """The command of a training stage: `stage(config, resume=..., overwrite=...)`. Returns the exit code."""
    args = make_parser(prog, text, trains=True).parse_args(argv)

    def body() -> None:
        config = config_from_args(args)
        stage(config, resume=args.resume, overwrite=args.overwrite)

    return run_cli(prog, body, argv, resumes=True)


def ranking_command(prog: str, text: str, argv: Sequence[str] | None = None) -> int:
    """The command of the ranking stage. Returns the exit code."""
    parser = make_parser(prog, text)
    normalize = "normalise scores by rare classes: true, false, or release (the published split's)"
    parser.add_argument("--normalize", type=normalize_mode, metavar="BOOL", help=normalize)
    parser.add_argument("--lambda1", type=float, metavar="SHARE", help="share of the target that becomes the easy half")
    parser.add_argument("--best_iter", "--best-iter", type=int, metavar="N", help="rank with model_N.pth, not the last")
    args = parser.parse_args(argv)

    def body() -> None:
        flags = {"RANK.NORMALIZE": args.normalize, "RANK.LAMBDA1": args.lambda1}
        overrides = [f"{key}={value}" for key, value in flags.items() if value is not None]
        rank_stage(config_from_args(args, overrides), best_iter=args.best_iter)

    return run_cli(prog, body, argv)


def evaluation_command(prog: str, text: str, argv: Sequence[str] | None = None) -> int:
    """The command of an evaluation. Returns the exit code."""
    parser = make_parser(prog, text)
    parser.add_argument("--save-preds", metavar="DIR", help="also write predictions: label ids at full size, colours")
    parser.add_argument("--depth", action="store_true", help="score the depth instead (Cityscapes with disparity)")
    parser.add_argument("--no-labels", action="store_true", help="only predict (with --save-preds): for a test server")
    args = parser.parse_args(argv)
    return run_cli(prog, lambda: evaluate_and_print(args), argv)


def evaluate_and_print(args: argparse.Namespace) -> None:
    """Evaluate with the settings of TEST and print the table on standard output; or only predict."""
    saved = [] if args.save_preds is None else [f"TEST.SAVE_PREDS={quoted(args.save_preds)}"]
    config = config_from_args(args, saved)
    if args.no_labels:
        if args.depth:
            raise ConfigError("--depth needs the target's disparity, --no-labels scores nothing; remove one of them")
        if not config.TEST.SAVE_PREDS:
            raise ConfigError("--no-labels: nothing to score or to write; name the output folder with --save-preds DIR")
        _print(f"predictions: {predict_stage(config)}")
        return
    if args.depth:
        scores = evaluate_depth(config)
        _print(markdown_table(["depth", *scores], [["error", *[f"{value:.4f}" for value in scores.values()]]]))
        return
    results = evaluate_stage(config)
    _print(results_table({row_name(result): result for result in results}, accuracy=True))
    if config.TEST.MODE == "single" and not config.TEST.ENSEMBLE:
        _compare_with_card(config, results[0])


@distributed.main_only
def _compare_with_card(config: Config, result: Mapping[str, Any]) -> None:
    """Log the mIoU that the card of a checkpoint documents for this data set, if there is a card."""
    checkpoint = Path(result["snapshot"])
    card = next((path for path in (checkpoint.with_suffix(".md"), checkpoint.parent / CARD) if path.is_file()), None)
    if card is None:
        return
    documented = documented_miou(card, config.TARGET)
    if documented is None:
        log.info("%s: documents no score on %s", card, config.TARGET)
        return
    difference = result["miou"] - documented
    log.info(
        "%s documents mIoU %.1f on %s; here %.1f (%+.2f)", card, documented, config.TARGET, result["miou"], difference
    )


@distributed.main_only
def _print(text: str) -> None:
    print(text)


def stages_from_args(args: argparse.Namespace) -> list[Stage]:
    """The stages of a protocol, with the command line's overrides (`NAME:KEY=VALUE` for one stage alone)."""
    if args.method is not None:
        raise ConfigError(
            "--method: applies to a single stage; use NAME:TRAIN.DA_METHOD=METHOD, or write a protocol file"
        )
    return stages_of(args.cfg or args.default_cfg, overrides_from_args(args))
