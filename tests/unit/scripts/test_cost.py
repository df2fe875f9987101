"""scripts/bench.py --only cost: one row per method, in units of a source-only step, on one thread."""

from collections.abc import Iterator

import pytest
import torch

from daf.methods import register
from helpers import tiny_data
from performance.cost import BASE, OVERHEADS, STEPS, cost


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)  # the results of other tests depend on it


def test_every_method_is_measured_against_the_source_only_step(two_threads: None) -> None:
    register()
    crop = "AUGMENT.CROP=[48,32]"
    rows = cost(torch.device("cpu"), 1, overrides=[*tiny_data.NETWORK, *tiny_data.SIZES, crop])
    assert torch.get_num_threads() == 2
    words = [row["what"] for row in rows]
    for name in STEPS:
        assert sum(line.startswith((f"step, {name}, one", f"step, {name}: does not fit")) for line in words) == 1
    times = {row["what"]: row["times"] for row in rows if "times" in row}
    assert times[f"step, {BASE}, one thread"] == 1.0
    assert times["step, SelfTraining, masked, one thread"] > 1.0  # four passes of the network instead of one
    shares = [row["share"] for row in rows if "share" in row]
    assert len(shares) == len(OVERHEADS)
    assert all(share > 0 for share in shares)
    base, data = next(row for row in rows if row["what"] == f"step, {BASE}, one thread"), rows[-1]
    assert data["what"] == f"  data worker, {BASE}: source images, augmented"
    assert data["times"] == pytest.approx(data["per_second"] * base["seconds"] / 2)  # two images per step
