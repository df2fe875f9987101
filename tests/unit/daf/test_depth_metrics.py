"""Depth metrics: closed forms."""

import math

import numpy as np
import pytest

from daf.dataset.depth import inverse_depth
from daf.depth_metrics import MEASURES, depth_scores, metres


def test_metres_invert_the_depth_target_up_to_the_cap():
    centimetres = np.array([[1.0, 250.0, 4000.0, 7999.0, 20000.0]])
    np.testing.assert_allclose(metres(inverse_depth(centimetres)), [[0.01, 2.5, 40.0, 79.99, 80.0]], rtol=1e-4)


@pytest.mark.parametrize("inverse", [-5.0, 0.0, 1e9])
def test_any_network_output_gives_a_valid_distance(inverse):
    assert 0.01 <= metres(np.full((1, 1), inverse))[0, 0] <= 80.0 + 1e-9


def test_a_perfect_prediction_of_any_scale():
    truth = np.array([[1.0, 2.0, 50.0, np.nan]])
    scores = depth_scores(3.0 * np.nan_to_num(truth, nan=7.0), truth)
    assert scores == pytest.approx(dict(zip(MEASURES, [0, 0, 0, 0, 1, 1, 1], strict=True)))


def test_worked_example():
    # Medians agree (2); errors 0, 0, 1 on truths 1, 2, 4.
    scores = depth_scores(np.array([[1.0, 2.0, 5.0]]), np.array([[1.0, 2.0, 4.0]]))
    want = [1 / 12, 1 / 12, math.sqrt(1 / 3), math.sqrt(math.log(5 / 4) ** 2 / 3), 2 / 3, 1, 1]
    assert scores == pytest.approx(dict(zip(MEASURES, want, strict=True)))


def test_pixels_beyond_the_cap_are_ignored():
    far = np.array([[1.0, 2.0, 80.1]])
    assert depth_scores(np.array([[1.0, 2.0, 3.0]]), far) == depth_scores(np.array([[1.0, 2.0]]), far[:, :2])
    assert depth_scores(np.ones((1, 2)), np.array([[np.nan, 90.0]])) is None
