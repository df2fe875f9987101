"""Depth-aware ranking of target images, and the split into easy (sub-source) and hard (sub-target)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from advent.dataset.classes import ClassSet
from advent.errors import ConfigError
from advent.evaluation.predictor import refuse_not_finite
from advent.utils.deprecation import deprecated_names
from advent.utils.loss import self_information
from daf.interaction import depth_aware_map, distance_aware_map

# The authors' code counts IntraDA's rare classes by their ids among 19 classes, also on its 16-class network, where the
# ids have other meanings (9 is sky there, 12 car, 15 bicycle; 16 and 17 do not exist).
RELEASED_RARE_IDS = (3, 4, 5, 6, 7, 9, 12, 14, 15, 16, 17)


def ranking_scores(logits: Tensor, depth: Tensor | None) -> list[float]:
    """One score per image: mean over classes, rows and columns of self-information x depth.

    logits (B, C, H, W) and depth (B, 1, H, W) at one size; without depth, self-information alone (IntraDA).
    A low score is easy. The power of the depth is 1 for any TRAIN.DEPTH_POWER. Depth has no sign constraint, so a score
    can be negative.
    """
    score_map = self_information(logits.softmax(1)) if depth is None else depth_aware_map(logits, depth)
    return score_map.mean((1, 2, 3)).tolist()


def distance_scores(logits: Tensor, depth: Tensor) -> list[float]:
    """One score per image: mean over classes, rows and columns of self-information x relative distance.

    Shapes as in `ranking_scores`. The factor is `distance_aware_map`'s.
    """
    return distance_aware_map(logits, depth).mean((1, 2, 3)).tolist()


def random_score(name: str, seed: int) -> float:
    """Random score in [0, 1), determined by name and seed: the control for uninformed ranking."""
    return random.Random(f"{seed} {name}").random()


def rare_classes(normalize: str, classes: ClassSet) -> tuple[int, ...]:
    """Rare train ids for RANK.NORMALIZE: `false` none, `true` by class name, `release` the ids of the authors' code.

    Raises ConfigError for a class set without rare classes.
    """
    if normalize == "false":
        return ()
    if not classes.rare:
        raise ConfigError(
            f"RANK.NORMALIZE: {normalize}: the class set {classes.name} has no rare classes to normalise by; "
            "use --normalize false"
        )
    return RELEASED_RARE_IDS if normalize == "release" else tuple(classes.rare)


def normaliser(prediction: Tensor, rare: Sequence[int]) -> float:
    """(R - r) / R + 0.5, r = number of the R rare classes present in an (H, W) prediction; 1 without rare classes.

    More rare classes make an image rank as easier: IntraDA includes them in the easy half's pseudo labels.
    """
    if not rare:
        return 1.0
    ids = torch.tensor(rare, dtype=prediction.dtype, device=prediction.device)  # MPS compares equal dtypes only
    present = torch.isin(ids, prediction).sum().item()
    return (len(rare) - present) / len(rare) + 0.5


def sort_by_score(names_and_scores: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """Sorted by ascending score; ties are broken by name, so the loading order does not matter.

    Raises NotFinite naming the images with a non-finite score: NaN breaks sorting.
    """
    pairs = list(names_and_scores)
    refuse_not_finite([name for name, value in pairs if not math.isfinite(value)], "the ranking's scores")
    return sorted(pairs, key=lambda item: (item[1], item[0]))


def split(names_and_scores: Iterable[tuple[str, float]], lambda1: float) -> tuple[list[str], list[str]]:
    """(easy, hard) names, each ascending by score: easy is the first int(N * lambda1).

    Raises ConfigError when one half is empty.
    """
    names = [name for name, _ in sort_by_score(names_and_scores)]
    easy = int(len(names) * lambda1)
    if not 0 < easy < len(names):
        raise ConfigError(
            f"RANK.LAMBDA1: {lambda1} of {len(names)} images leaves one half empty; choose it nearer to 0.5"
        )
    return names[:easy], names[easy:]


__getattr__ = deprecated_names(__name__, {"rank": "sort_by_score", "score": "ranking_scores"})
