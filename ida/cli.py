"""What the stage scripts share: the command line of a stage, with every floor's networks and methods registered."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from advent import cli
from advent.cli import config_from_args, make_parser, normalize_mode, overrides_from_args, quoted
from advent.errors import ConfigError
from advent.evaluation.results import row_name
from advent.evaluation.stage import evaluate_stage, predict_stage
from advent.runtime import distributed
from advent.utils.tables import markdown_table, results_table
from daf.depth_metrics import evaluate_depth
from daf.registration import register
from ida.pipeline.stage import Stage, stages_of

__all__ = [
    "config_from_args", "evaluate_and_print", "make_parser", "make_test_parser", "normalize_mode", "run_door",
    "stages_from_args",
]  # fmt: skip


def run_door(prog: str, body: Callable[[], None], argv: Sequence[str] | None = None, resumes: bool = False) -> int:
    """As advent's, with everything with depth registered before the body runs."""
    register()
    return cli.run_cli(prog, body, argv, resumes)


def make_test_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The common options, and those of the doors that evaluate."""
    parser = make_parser(prog, description)
    parser.add_argument("--save-preds", metavar="DIR", help="also write predictions: label ids at full size, colours")
    parser.add_argument("--depth", action="store_true", help="score the depth instead (Cityscapes with disparity)")
    parser.add_argument("--no-labels", action="store_true", help="only predict (with --save-preds): for a test server")
    return parser


def evaluate_and_print(args: argparse.Namespace) -> None:
    """Score as TEST says and print the table on standard output; or only predict."""
    saved = [] if args.save_preds is None else [f"TEST.SAVE_PREDS={quoted(args.save_preds)}"]
    config = config_from_args(args, saved)
    if args.no_labels:
        if args.depth:
            raise ConfigError("--depth: is scored on the target's disparity, --no-labels scores nothing; leave one out")
        if not config.TEST.SAVE_PREDS:
            raise ConfigError("--no-labels: there is nothing to score; say where predictions go with --save-preds DIR")
        _print(f"predictions: {predict_stage(config)}")
        return
    if args.depth:
        scores = evaluate_depth(config)
        _print(markdown_table(["depth", *scores], [["error", *[f"{value:.4f}" for value in scores.values()]]]))
        return
    results = evaluate_stage(config)
    _print(results_table({row_name(result): result for result in results}, accuracy=True))


@distributed.main_only
def _print(text: str) -> None:
    print(text)


def stages_from_args(args: argparse.Namespace) -> list[Stage]:
    """The stages of a protocol, with the command line's overrides (`NAME:KEY=VALUE` for one stage alone)."""
    if args.method is not None:
        raise ConfigError("--method: is for one stage; name it: NAME:TRAIN.DA_METHOD=METHOD, or write a protocol file")
    return stages_of(args.cfg or args.default_cfg, overrides_from_args(args))
