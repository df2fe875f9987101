"""Per-class thresholds of pseudo labels: closed forms."""

from __future__ import annotations

import pytest
import torch

from daf.class_thresholds import class_thresholds
from ida.pseudo_labels import pseudo_label

# Histogram of predicted probabilities: three classes, ten bins.
COUNTS = torch.tensor(
    [
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 10],  # always certain
        [0, 0, 0, 0, 0, 6, 0, 0, 4, 0],  # four pixels at 0.8, six at 0.5
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],  # never predicted
    ],
    dtype=torch.float64,
)


@pytest.mark.parametrize(("share", "want"), [(0.3, 0.8), (0.4, 0.8), (0.41, 0.5), (1.0, 0.5)])
def test_a_class_keeps_the_share_asked_for(share: float, want: float) -> None:
    assert class_thresholds(COUNTS, 0.9, share).tolist() == [0.9, want, 0.9]


def test_a_threshold_is_never_raised() -> None:
    assert class_thresholds(COUNTS, 0.2, 0.3).tolist() == [0.2, 0.2, 0.2]


def test_labels_under_a_threshold_for_each_class() -> None:
    probabilities = torch.tensor([[0.7, 0.3], [0.4, 0.6], [0.2, 0.8]], dtype=torch.float64)
    logits = probabilities.log().T.reshape(1, 2, 1, 3)
    assert pseudo_label(logits, torch.tensor([0.9, 0.5])).tolist() == [[[255, 1, 1]]]
    assert pseudo_label(logits, 0.75).tolist() == [[[255, 255, 1]]]
