"""Paired differences over seeds: mean and 95 % t interval, and what follows for a use of depth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from advent.utils.tables import signed

Conclusion = Literal["helps", "does not", "cannot tell"]
SMALL_EFFECT = 1.0  # mIoU points; below it, a part is said not to help


@dataclass(frozen=True)
class Interval:
    """Mean of n paired differences and the ends of its 95 % interval; a single difference has no interval (None)."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Half of its width: the smallest mean that such an interval could tell from 0."""
        return None if self.low is None else self.mean - self.low

    def __str__(self) -> str:
        ends = "" if self.low is None or self.high is None else f" ({signed(self.low)} to {signed(self.high)})"
        return f"{signed(self.mean)}{ends}"


def paired_interval(differences: Sequence[float]) -> Interval:
    """Mean +- t(0.975, n - 1) s / sqrt(n) of at least one difference."""
    n, mean = len(differences), statistics.mean(differences)
    if n == 1:
        return Interval(mean, None, None, 1)
    half = t_quantile(n - 1) * statistics.stdev(differences) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def conclude(found: Mapping[str, Interval], controls: Sequence[str]) -> Conclusion:
    """What the differences to the controls say: `found` are those with results, `controls` the names of all.

    helps: every control has results, and every interval is above 0. does not: the upper end against the strongest
    control, the one with the lowest mean, is below 1 mIoU. Otherwise, also with a single seed: cannot tell.
    """
    above = [interval.low is not None and interval.low > 0 for interval in found.values()]
    if all(above) and all(control in found for control in controls):
        return "helps"
    strongest = min(found.values(), key=lambda interval: interval.mean)
    if strongest.high is not None and strongest.high < SMALL_EFFECT:
        return "does not"
    return "cannot tell"


def conclusions(measures: Mapping[str, Mapping[str, Interval]], controls: Sequence[str]) -> str:
    """The conclusion of each measure with results; only one word if all agree."""
    words = {measure: conclude(found, controls) for measure, found in measures.items() if found}
    if len(set(words.values())) <= 1:
        return next(iter(words.values()), "")
    return "; ".join(f"{measure}: {word}" for measure, word in words.items())


def t_quantile(freedom: int, coverage: float = 0.95) -> float:
    """The t with P(|T| <= t) = `coverage` of Student's distribution with `freedom` degrees of freedom, by bisection."""
    low, high = 0.0, 1.0
    while within(high, freedom) < coverage:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < coverage else (low, middle)
    return high


def within(t: float, freedom: int) -> float:
    """P(|T| <= t) of Student's distribution: the finite series for whole degrees (Abramowitz and Stegun, 26.7.3-4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
