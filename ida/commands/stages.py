"""The stage commands of `dgada`."""

from __future__ import annotations

from collections.abc import Sequence

from ida.cli import evaluation_command, intra_stage, isl_stage, ranking_command, train_stage, training_command


def train(argv: Sequence[str] | None = None) -> int:
    """As train.py; returns the exit code."""
    return training_command("train.py", "Stage 0: train an adaptation method, source to target.", train_stage, argv)


def isl(argv: Sequence[str] | None = None) -> int:
    """As train_isl.py; returns the exit code."""
    return training_command("train_isl.py", "Stage 1: iterative self-learning on pseudo labels.", isl_stage, argv)


def rank(argv: Sequence[str] | None = None) -> int:
    """As entropy.py; returns the exit code."""
    return ranking_command("entropy.py", "Stage 2a: rank the target and split it into easy and hard.", argv)


def ida(argv: Sequence[str] | None = None) -> int:
    """As train_intra.py; returns the exit code."""
    return training_command("train_intra.py", "Stage 2b: adversarial training, easy to hard half.", intra_stage, argv)


def evaluate(argv: Sequence[str] | None = None) -> int:
    """As test.py (PROTOCOL:STAGE scores a later stage); returns the exit code."""
    return evaluation_command("test.py", "Per-class IoU and mIoU of one checkpoint, the last one, or every one.", argv)
