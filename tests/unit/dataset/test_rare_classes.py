"""Rare class sampling: class counts, probabilities, images, crops, and the same draws for any number of processes."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from advent.build import rare_class_sampler, source_data, target_data
from advent.config.loading import load_config
from advent.config.schema import AugmentConfig, Config
from advent.dataset.augment import Augmentation
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.class_counts import class_counts
from advent.dataset.sampling import Draw, InfiniteBatchSampler, RareClassSampler
from advent.errors import DataError
from advent.training.stage import training_batches
from helpers import tiny_data

CPU = torch.device("cpu")
# Pixels of four classes, of which the last does not occur, in five images of 1000 pixels. The sum is 1000: some pixels
# are not labelled.
COUNTS = np.array([[200, 0, 0, 0], [200, 2, 0, 0], [200, 40, 0, 0], [100, 50, 4, 0], [200, 0, 4, 0]])
SHARES = [0.9, 0.092, 0.008]


def config_of(data: Path, *overrides: str) -> Config:
    common = [*tiny_data.NETWORK, *tiny_data.SIZES, *tiny_data.SHORT, f"DATA_ROOT={data}"]
    return load_config("quick:daf", [*common, "TRAIN.RARE_CLASS_TEMPERATURE=0.05", *overrides])


def closed_form(temperature: float) -> list[float]:
    weights = [math.exp((1 - share) / temperature) for share in SHARES]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_probabilities_are_the_softmax_of_one_minus_the_share(temperature: float) -> None:
    sampler = RareClassSampler(COUNTS, 1000, temperature, 0.003, 0)
    assert list(sampler.classes) == [0, 1, 2]  # class 3 does not occur
    np.testing.assert_allclose(sampler.probabilities, closed_form(temperature), rtol=1e-12)


def test_a_tiny_temperature_draws_the_rarest_class() -> None:
    sampler = RareClassSampler(COUNTS, 1000, 1e-9, 0.003, 0)
    assert {sampler(position).wanted for position in range(50)} == {2}


def test_draws_follow_the_probabilities_and_images_are_uniform() -> None:
    temperature, count = 0.5, 6000
    sampler = RareClassSampler(COUNTS, 1000, temperature, 0.003, 7)
    draws = [sampler(position) for position in range(count)]
    assert [draw.position for draw in draws] == list(range(count))
    images = {0: [0, 1, 2, 3, 4], 1: [2, 3], 2: [3, 4]}  # class 1 fills 0.2 % of image 1, which is too little
    seen = Counter((draw.wanted, draw.index) for draw in draws)
    expected = {
        (train_id, index): rate / len(images[train_id])
        for train_id, rate in enumerate(closed_form(temperature))
        for index in images[train_id]
    }
    assert seen.keys() == expected.keys()
    for key, rate in expected.items():
        assert abs(seen[key] / count - rate) < 4 * math.sqrt(rate * (1 - rate) / count)


def test_a_class_that_no_image_shows_enough_of_is_drawn_from_those_with_any() -> None:
    sampler = RareClassSampler(COUNTS, 1000, 1e-9, 0.5, 0)
    assert {sampler(position).index for position in range(60)} == {3, 4}


def test_resumed_runs_and_processes_draw_the_same() -> None:
    choose = RareClassSampler(COUNTS, 1000, 0.5, 0.003, 7)
    expected = list(islice(InfiniteBatchSampler(5, 4, 7, choose=choose), 6))
    assert list(islice(InfiniteBatchSampler(5, 4, 7, 2, choose=choose), 4)) == expected[2:]
    parts = [iter(InfiniteBatchSampler(5, 2, 7, parts=2, first=first, choose=choose)) for first in range(2)]
    assert [[*next(parts[0]), *next(parts[1])] for _ in range(6)] == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_are_drawn_by_class(data: Path, workers: int) -> None:
    augment = ["AUGMENT.FLIP=true", "AUGMENT.CROP=[40,40]", f"NUM_WORKERS={workers}"]
    config = config_of(data, *augment)
    dataset = source_data(config)
    sampler = rare_class_sampler(config, dataset)
    assert sampler is not None
    batches = list(islice(training_batches(config, dataset, "source", CPU, 0), 5))
    for batch in batches:
        assert batch["name"] == [dataset.names[sampler(position).index] for position in batch["position"].tolist()]
    resumed = next(training_batches(config, dataset, "source", CPU, 3))
    assert torch.equal(resumed["image"], batches[3]["image"])
    assert torch.equal(resumed["label"], batches[3]["label"])


def test_a_crop_shows_the_wanted_class() -> None:
    """A class in the lowest 4 x 4 pixels at the right: every crop that holds it is better than the others."""
    label = torch.zeros(40, 60, dtype=torch.uint8)
    label[36:, 56:] = 3
    item = {"image": torch.zeros(40, 60, 3, dtype=torch.uint8), "label": label}
    cut = Augmentation(AugmentConfig(CROP=[40, 32]), 0, "source", crop_share=0.006)

    def pixels(wanted: int, position: int) -> int:
        return int((cut(dict(item), Draw(0, position, wanted))["label"] == 3).sum())

    without = [pixels(-1, position) for position in range(200)]
    wanted = [pixels(3, position) for position in range(200)]
    assert all(more >= less for more, less in zip(wanted, without, strict=True))
    enough = 0.006 * 40 * 32
    # 9 x 21 places, of which 3 x 3 hold more than 7.68 pixels (8, 9, 12 or 16 of the 16).
    share = sum(right * down > enough for right in (4, 3, 2, 1) for down in (4, 3, 2, 1)) / (9 * 21)
    assert abs(sum(p > enough for p in without) / 200 - share) < 0.06
    assert abs(sum(p > enough for p in wanted) / 200 - (1 - (1 - share) ** 10)) < 0.15


def test_without_enough_the_best_crop_is_taken() -> None:
    label = torch.zeros(40, 60, dtype=torch.uint8)
    label[:, 30:] = 3
    item = {"image": torch.zeros(40, 60, 3, dtype=torch.uint8), "label": label}
    best, first = (
        [
            int(
                (
                    Augmentation(AugmentConfig(CROP=[40, 32]), 0, "source", 2.0)(dict(item), Draw(0, p, w))["label"]
                    == 3
                ).sum()
            )
            for p in range(40)
        ]
        for w in (3, -1)
    )
    assert all(more >= less for more, less in zip(best, first, strict=True))
    assert sum(best) > sum(first) * 1.1


def test_counts_are_those_of_the_labels(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = source_data(config_of(data))
    counts = class_counts(dataset, data / "cache")
    expected = [[int((dataset[i]["label"] == c).sum()) for c in range(7)] for i in range(len(dataset))]
    assert counts.tolist() == expected
    monkeypatch.setattr(StreetDataset, "label", None)  # from here on, no label is opened
    assert class_counts(source_data(config_of(data)), data / "cache").tolist() == expected


def test_counts_are_made_again_for_other_labels_sizes_and_classes(data: Path) -> None:
    folder = data / "cache"
    first = source_data(config_of(data))
    class_counts(first, folder)
    other_size = source_data(config_of(data, "TRAIN.INPUT_SIZE_SOURCE=[32,32]"))
    assert class_counts(other_size, folder).sum() < 0.5 * class_counts(first, folder).sum()
    assert class_counts(source_data(config_of(data, "NUM_CLASSES=16", "CLASSES=street16")), folder).shape[1] == 16
    tiny_data.write_png(first.label_files[0], np.full((48, 64), 3, np.uint8))  # all road
    os.utime(first.label_files[0], ns=(1, 1))
    assert class_counts(source_data(config_of(data)), folder)[0].tolist() == [48 * 64, 0, 0, 0, 0, 0, 0]
    assert len(list(folder.iterdir())) == 4


def test_a_folder_that_cannot_be_written_costs_a_recount(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "cache").write_text("a file, not a folder")
    dataset = source_data(config_of(data))
    with caplog.at_level(logging.WARNING):
        counts = class_counts(dataset, data / "cache")
    assert counts.tolist() == class_counts(dataset, None).tolist()
    assert len(caplog.records) == 1
    assert "counts the labels' classes again" in caplog.text


def test_damaged_counts_are_made_again(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = source_data(config_of(data))
    counts = class_counts(dataset, data / "cache")
    (file,) = (data / "cache").glob("*class-counts*")
    for content in (b"", b"no archive", file.read_bytes()[:40]):
        file.write_bytes(content)
        assert class_counts(dataset, data / "cache").tolist() == counts.tolist()
    assert caplog.text.count("counting the labels' classes again") == 3


def test_only_labelled_data_sets_are_sampled(data: Path, tmp_path: Path) -> None:
    config = config_of(data)
    assert rare_class_sampler(config_of(data, "TRAIN.RARE_CLASS_TEMPERATURE=0"), source_data(config)) is None
    for name in target_data(config).names:
        tiny_data.write_png(tmp_path / "labels" / name, np.zeros((48, 64), np.uint8))
    assert rare_class_sampler(config, target_data(config, label_dir=tmp_path / "labels")) is None
    upper_bound = config_of(
        data, "SOURCE=CamVid", "TRAIN.SET_SOURCE=val", "MODEL.NAME=DeepLabv2", "TRAIN.DA_METHOD=SourceOnly"
    )
    sampler = rare_class_sampler(upper_bound, source_data(upper_bound))
    assert sampler is not None
    assert len(sampler.classes) == 7


def test_labels_without_any_class_are_refused(data: Path) -> None:
    for file in (data / "streets/parsed_LABELS").iterdir():
        tiny_data.write_png(file, np.zeros((48, 64), np.uint8))  # void
    config = config_of(data)
    with pytest.raises(DataError, match="show none of the classes of street7"):
        rare_class_sampler(config, source_data(config))
