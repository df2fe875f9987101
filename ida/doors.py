"""What the stage scripts share: the command line of a stage, with every floor's networks and methods registered."""

from __future__ import annotations

import argparse
from typing import Any

import daf.dataset.depth
import daf.dataset.synthia
import daf.methods  # noqa: F401  (these three register depth kinds, data sets, networks and methods)
from advent.domain_adaptation.config import load_config
from advent.domain_adaptation.eval_UDA import evaluate_stage
from advent.engine import options
from advent.engine.options import config_from_args, make_parser, normalize_mode, run_door
from advent.engine.tables import results_table

__all__ = ["config_from_args", "evaluate_and_print", "make_parser", "normalize_mode", "pipeline_from_args", "run_door"]


def evaluate_and_print(config: Any) -> None:
    """Score as TEST says and print the table on standard output."""
    results = evaluate_stage(config)
    rows = {f"{result['selected']} {_name(result)}": result for result in results}
    print(results_table(rows))


def _name(result: dict[str, Any]) -> str:
    return f"model_{result['iteration']}" if result["iteration"] is not None else result["snapshot"]


def pipeline_from_args(args: argparse.Namespace) -> tuple[Any, list[str]]:
    """The pipeline's config, and the overrides that its stages get (`NAME:KEY=VALUE` for one stage alone)."""
    overrides = options.overrides_from_args(args)
    common = [pair for pair in overrides if ":" not in pair.split("=", 1)[0]]
    return load_config(args.cfg, common, default=args.default_cfg), overrides
