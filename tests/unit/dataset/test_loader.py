"""Data loading: batch order, groups of batches per worker, identical content for any number of workers."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from advent.build import target_data
from advent.cli import OneLineParser, make_parser, overrides_from_args
from advent.config.loading import load_config
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.loader import THREADS, InfiniteBatchSampler, _Groups, load_batches, sequential_batches
from advent.dataset.spec import load_spec
from advent.errors import DataError
from helpers.dataset_layouts import C7


@pytest.mark.parametrize(
    ("length", "size", "want"),
    [
        (5, 2, [[0, 1], [2, 3], [4]]),
        (4, 2, [[0, 1], [2, 3]]),
        (3, 8, [[0, 1, 2]]),
        (0, 2, []),
    ],
)
def test_sequential_batches_cover_every_index_once(length: int, size: int, want: list[list[int]]) -> None:
    assert [list(batch) for batch in sequential_batches(length, size)] == want


@pytest.mark.parametrize(
    ("size", "images", "sizes"),
    [
        (1, 4, [4, 4, 2]),
        (3, 4, [1, 1, 1, 1]),
        (2, 4, [2, 2, 1]),
        (8, 4, [1, 1]),
        (1, 1, [1] * 10),
    ],
)
def test_group_sizes(size: int, images: int, sizes: list[int]) -> None:
    batches = sequential_batches(10, size)
    groups = list(_Groups(batches, images))
    assert [len(group) for group in groups] == sizes
    assert [batch for group in groups for batch in group] == batches


def test_infinite_batches_are_grouped_lazily() -> None:
    groups = islice(_Groups(InfiniteBatchSampler(3, 2, seed=0), 4), 3)
    assert [len(group) for group in groups] == [2, 2, 2]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 3])
def test_threads_and_workers_do_not_change_batches(data: Path, workers: int, size: int) -> None:
    dataset = StreetDataset(
        load_spec("streets"), data / "streets", "all", C7, size=(64, 48), label_size=(64, 48), with_labels=True
    )
    batches = [[7, 0, 3][:size], [2, 2, 1][:size]] * THREADS
    loaded = list(load_batches(dataset, workers, torch.device("cpu"), batches))
    assert [batch["name"] for batch in loaded] == [[dataset.names[i] for i in batch] for batch in batches]
    for batch, indices in zip(loaded, batches, strict=True):
        for key in ("image", "label"):
            assert torch.equal(batch[key], torch.stack([dataset[i][key] for i in indices]))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_stops_at_its_batch(data: Path, workers: int) -> None:
    (data / "streets/RGB/0000003.png").write_bytes(b"no picture")
    dataset = StreetDataset(load_spec("streets"), data / "streets", "all", C7, size=(64, 48))
    batches = load_batches(dataset, workers, torch.device("cpu"), sequential_batches(len(dataset), 1))
    assert [next(batches)["name"] for _ in range(3)] == [[name] for name in dataset.names[:3]]
    with pytest.raises(DataError, match=r"0000003\.png"):
        next(batches)


def test_list_file_of_this_project_is_found(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [f"DATA_ROOT={data}", "DATA_LIST_TARGET=configs/lists/camvid_without_dusk.txt"]
    monkeypatch.chdir(data)
    with pytest.raises(DataError, match=r"0006R0_f00930\.png"):  # found; its images are not in tiny data
        target_data(load_config("quick:daf", overrides))
    users_list = data / "configs/lists/camvid_without_dusk.txt"
    users_list.parent.mkdir(parents=True)
    users_list.write_text("0002.png\n")
    assert target_data(load_config("quick:daf", overrides)).names == ["0002.png"]  # the user's file has precedence


def test_pairs_may_follow_a_flag_of_several_values() -> None:
    parser = OneLineParser(prog="x")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args(["--seeds", "1", "2", "TRAIN.MAX_ITERS=3", "daf:ISL.THRESHOLD=0.5"])
    assert (args.seeds, args.overrides) == ([1, 2], ["TRAIN.MAX_ITERS=3", "daf:ISL.THRESHOLD=0.5"])


@pytest.mark.parametrize(
    "given",
    [
        ["--exp-suffix", "LR=1e-3", "TRAIN.KEEP=3"],
        ["TRAIN.KEEP=3", "--exp-suffix", "LR=1e-3"],
        ["--exp-suffix=LR=1e-3", "TRAIN.KEEP=3"],
    ],
)
def test_a_flags_value_may_look_like_a_pair(given: list[str]) -> None:
    args = make_parser("x", "x", "dg.yml").parse_args(given)
    assert (args.exp_suffix, args.overrides) == ("LR=1e-3", ["TRAIN.KEEP=3"])
    assert load_config("dg", overrides_from_args(args)).EXP_SUFFIX == "LR=1e-3"


def test_a_flags_value_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    parser = OneLineParser(prog="x")
    parser.add_argument("--output", type=Path)
    assert parser.parse_args(["--output=~/out"]).output == tmp_path / "out"  # a shell does not expand ~ after =
    args = make_parser("x", "x", "dg.yml").parse_args(["--exp_root_dir=~/exp", "--data-root", "~/set #1"])
    config = load_config("dg", overrides_from_args(args))
    assert (f"{tmp_path}/exp", f"{tmp_path}/set #1") == (config.EXP_ROOT, config.DATA_ROOT)
