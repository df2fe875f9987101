"""Evenly spaced indices: closed forms."""

from __future__ import annotations

from itertools import pairwise

import pytest

from advent.utils.sampling import evenly_spaced


@pytest.mark.parametrize(
    ("length", "count", "indices"),
    [
        (9, 5, [0, 2, 4, 6, 8]),
        (10, 4, [0, 3, 6, 9]),
        (4, 3, [0, 2, 3]),  # the middle, 1.5, is rounded to the even index
        (100, 1, [0]),
        (3, 3, [0, 1, 2]),
        (3, 7, [0, 1, 2]),
        (3, 0, []),
        (0, 5, []),
    ],
)
def test_evenly_spaced_indices(length: int, count: int, indices: list[int]) -> None:
    assert evenly_spaced(length, count) == indices


def test_first_and_last_are_included_and_no_index_is_repeated() -> None:
    for length in range(2, 60):
        for count in range(2, length + 1):
            indices = evenly_spaced(length, count)
            assert (indices[0], indices[-1], len(indices)) == (0, length - 1, count)
            assert all(low < high for low, high in pairwise(indices))


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        evenly_spaced(3, -1)
