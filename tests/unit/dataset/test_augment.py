"""Augmentation: registration, depth under a zoom, the same numbers for any number of workers and processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from advent.build import source_data, target_data
from advent.config.fields import without_effect
from advent.config.loading import config_digest, load_config
from advent.config.schema import AugmentConfig, Config
from advent.dataset import augment
from advent.dataset.augment import Augmentation, color_jitter, draw_photometric, gaussian_blur, strong_augmentation
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.build_cache import fill_cache
from advent.dataset.loader import load_batches
from advent.dataset.sampling import STREAMS, Draw, InfiniteBatchSampler, sample_rng
from advent.errors import ConfigError
from advent.training.stage import training_batches
from helpers import tiny_data

CPU = torch.device("cpu")
SEED = 5
WIDTH, HEIGHT = 60, 40
EVERYTHING = ["AUGMENT.FLIP=true", "AUGMENT.SCALE=[0.6,2]", "AUGMENT.CROP=[40,32]", "AUGMENT.JITTER=0.2"]
EVERYTHING += ["AUGMENT.BLUR=true"]


def coordinates() -> dict[str, Any]:
    """An item whose blue and green are 4 times the column and row, the label the column, the depth the row."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([4 * columns, 4 * rows, 0 * rows], axis=2).astype(np.uint8)
    depth = torch.from_numpy(rows.astype(np.float32))
    return {"image": torch.from_numpy(image), "label": torch.from_numpy(columns.astype(np.uint8)), "depth": depth}


def augmented(position: int, domain: str = "source", wanted: int = -1, **keys: Any) -> dict[str, Any]:
    return Augmentation(AugmentConfig(**keys), SEED, domain)(coordinates(), Draw(0, position, wanted))


def config_of(data: Path, *overrides: str) -> Config:
    common = [*tiny_data.NETWORK, *tiny_data.SIZES, *tiny_data.SHORT, f"DATA_ROOT={data}"]
    return load_config("quick:daf", [*common, *overrides])


def assert_equal_batches(left: Iterator[dict[str, Any]], right: Iterator[dict[str, Any]], count: int = 6) -> None:
    for first, second in islice(zip(left, right, strict=False), count):
        assert first.keys() == second.keys()
        assert first["name"] == second["name"]
        assert all(torch.equal(first[key], second[key]) for key in first if key != "name")


@pytest.mark.parametrize("position", range(12))
@pytest.mark.parametrize(
    "keys", [{}, {"CROP": [40, 32]}, {"SCALE": [2.0, 3.0]}, {"SCALE": [0.5, 1.5], "CROP": [36, 32]}]
)
def test_image_label_and_depth_stay_in_register(position: int, keys: dict[str, Any]) -> None:
    item = augmented(position, FLIP=True, **keys)
    width, height = keys.get("CROP", [WIDTH, HEIGHT])
    assert item["image"].shape == (height, width, 3)
    assert item["label"].shape == item["depth"].shape == (height, width)
    inner = np.s_[2:-2, 2:-2]  # at the border, the filter has pixels on one side only
    assert (item["image"][..., 0].float() / 4 - item["label"]).abs()[inner].max() <= 1
    assert (item["image"][..., 1].float() / 4 - item["depth"]).abs()[inner].max() <= 1
    steps = item["label"].int().diff(dim=1)
    assert (steps >= 0).all() or (steps <= 0).all()  # every row is mirrored, or none


def test_half_of_the_images_are_mirrored() -> None:
    mirrored = [torch.equal(augmented(p, FLIP=True)["label"], coordinates()["label"].flip(1)) for p in range(400)]
    plain = [torch.equal(augmented(p, FLIP=True)["label"], coordinates()["label"]) for p in range(400)]
    assert sum(mirrored) + sum(plain) == 400
    assert abs(sum(mirrored) - 200) < 40  # four standard deviations


def test_a_zoom_is_drawn_log_uniformly_where_the_region_fits() -> None:
    drawn = [float(augmented(p, SCALE=[0.1, 2.0], CROP=[36, 32])["zoom"]) for p in range(600)]
    smallest = max(36 / WIDTH, 32 / HEIGHT)
    assert smallest * 0.97 < min(drawn) < smallest * 1.05
    assert max(drawn) < 2.1
    middle = math.sqrt(smallest * 2.0)  # as many zooms are below as above
    assert abs(sum(zoom < middle for zoom in drawn) - 300) < 50


def test_crops_reach_every_place() -> None:
    corners = {
        (int(item["label"][0, 0]), int(item["depth"][0, 0]))
        for item in (augmented(p, CROP=[56, 38]) for p in range(300))
    }
    assert corners == {(left, top) for left in range(5) for top in range(3)}


def test_a_crop_without_zoom_copies_pixels() -> None:
    item = augmented(3, CROP=[40, 32])
    left, top = int(item["label"][0, 0]), int(item["depth"][0, 0])
    assert item["zoom"] == 1
    assert torch.equal(item["image"], coordinates()["image"][top : top + 32, left : left + 40])


def test_depth_keeps_all_of_its_16_bits() -> None:
    bits = torch.from_numpy(np.random.RandomState(0).randint(-(2**15), 2**15, (HEIGHT, WIDTH)).astype(np.int16))
    keys = AugmentConfig(SCALE=[0.5, 3.0], FLIP=True, CROP=[36, 32])
    for position in range(8):
        where = torch.arange(HEIGHT * WIDTH, dtype=torch.int32).view(HEIGHT, WIDTH)
        cut, places = (
            Augmentation(keys, SEED, "source")({**coordinates(), "depth": depth}, Draw(0, position))["depth"]
            for depth in (bits, where)
        )
        assert cut.dtype == torch.int16
        assert torch.equal(cut, bits.flatten()[places.flatten().long()].view(cut.shape))


def test_inverse_depth_is_multiplied_by_the_zoom() -> None:
    depth = torch.tensor([[[0.0, 1.0, 40000.0, 65536.0]], [[0.0, 2.0, 4.0, 65536.0]]])
    expected = torch.tensor([[[0.0, 2.0, 65536.0, 65536.0]], [[0.0, 1.0, 2.0, 32768.0]]])
    assert torch.equal(augment.zoomed_depth(depth, torch.tensor([2.0, 0.5])), expected)


@pytest.mark.parametrize("zoom", [1.0, 2.0])
def test_batches_hold_the_depth_of_the_enlarged_image(data: Path, zoom: float) -> None:
    """The stripes of the tiny images are 500 + 900 i centimetres away."""
    config = config_of(data, f"AUGMENT.SCALE=[{zoom},{zoom}]", "AUGMENT.FLIP=true")
    batch = next(training_batches(config, source_data(config), "source", CPU, 0))
    stripes = torch.tensor([65536.0 / (500 + 900 * stripe + 1) for stripe in range(8)])
    assert torch.isclose(batch["depth"][..., None], zoom * stripes).any(-1).all()
    assert "zoom" not in batch


def test_padding_stays_ignored() -> None:
    item = coordinates()
    item["image"][:30], item["depth"][:30] = 9, 7
    item["image"][30:], item["depth"][30:], item["label"][30:] = 0, 0, 255
    cut = Augmentation(AugmentConfig(FLIP=True, SCALE=[0.8, 3.0], CROP=[36, 32]), SEED, "source")
    for position in range(8):
        changed = cut(dict(item), Draw(0, position))
        padded = changed["label"] == 255
        assert torch.equal(padded, changed["depth"] == 0)
        assert (changed["image"][..., 0][padded] <= 5).all()
        assert (changed["image"][..., 0][~padded] >= 4).all()


def test_photometric_changes_are_for_labelled_images() -> None:
    keys = {"JITTER": 0.4, "BLUR": True}
    changed = [not torch.equal(augmented(p, **keys)["image"], coordinates()["image"]) for p in range(100)]
    assert abs(sum(changed) - 0.9 * 100) < 12  # 1 - (1 - 0.8)(1 - 0.5), four standard deviations
    assert not Augmentation(AugmentConfig(**keys), SEED, "target").used
    assert torch.equal(augmented(0, "target", **keys)["image"], coordinates()["image"])
    for key in ("label", "depth"):
        assert torch.equal(augmented(0, **keys)[key], coordinates()[key])


@pytest.mark.parametrize("position", range(6))
def test_a_worker_changes_an_image_as_the_device_does(position: int) -> None:
    changed = augmented(position, JITTER=0.2, BLUR=True)["image"].permute(2, 0, 1)
    rng = sample_rng(SEED, "source", position)
    drawn = draw_photometric(rng, 0.2, blur=True)
    expected = coordinates()["image"].permute(2, 0, 1)[None].float()
    if drawn.jitter:
        expected = color_jitter(expected, torch.tensor([drawn[1:5]]), torch.zeros(3))
    if drawn.sigma:
        expected = gaussian_blur(expected, torch.tensor([drawn.sigma]))
    assert (changed - expected[0]).abs().max() <= 1.01  # rounded twice


def test_only_the_source_is_cropped_if_asked_for() -> None:
    assert Augmentation(AugmentConfig(FLIP=True, DOMAINS="source"), SEED, "source").used
    assert not Augmentation(AugmentConfig(FLIP=True, DOMAINS="source"), SEED, "target").used
    assert Augmentation(AugmentConfig(FLIP=True), SEED, "target").used


@pytest.mark.parametrize("domain", ["source", "target"])
def test_defaults_change_nothing(data: Path, domain: str) -> None:
    config = config_of(data)
    dataset = source_data(config) if domain == "source" else target_data(config)
    assert not Augmentation(config.AUGMENT, SEED, domain).used
    seed = config.TRAIN.RANDOM_SEED + (domain == "target")
    batches = training_batches(config, dataset, domain, CPU, 2)
    for batch, draws in islice(zip(batches, InfiniteBatchSampler(len(dataset), 2, seed, 2), strict=False), 5):
        items = [dataset[draw.index] for draw in draws]
        assert batch["position"].tolist() == [draw.position for draw in draws]
        assert batch.keys() == items[0].keys() | {"position"}
        assert all(torch.equal(batch[k], torch.stack([item[k] for item in items])) for k in items[0] if k != "name")


def test_digests_of_earlier_runs_hold() -> None:
    config = load_config("ep1:daf")
    assert config_digest(config) == config_digest(config, [*without_effect(), "AUGMENT."])
    assert config_digest(config) != config_digest(load_config("ep1:daf", ["AUGMENT.FLIP=true"]))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_a_resumed_run_draw_the_same(data: Path, workers: int) -> None:
    config = config_of(data, *EVERYTHING, f"NUM_WORKERS={workers}")
    alone = config_of(data, *EVERYTHING)
    for domain, dataset in (("source", source_data(config)), ("target", target_data(config))):
        expected = training_batches(alone, dataset, domain, CPU, 0)
        assert_equal_batches(training_batches(config, dataset, domain, CPU, 0), expected)
        assert_equal_batches(training_batches(config, dataset, domain, CPU, 6), expected)  # of iterations 6 to 11


@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_draw_what_one_process_draws(data: Path, accumulate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(data, *EVERYTHING, "TRAIN.BATCH_SIZE_SOURCE=4", "TRAIN.ACCUMULATE=1")
    expected = list(islice(training_batches(config, source_data(config), "source", CPU, 0), 3))
    part = config_of(data, *EVERYTHING, f"TRAIN.BATCH_SIZE_SOURCE={2 // accumulate}", f"TRAIN.ACCUMULATE={accumulate}")
    monkeypatch.setattr("advent.dataset.loader.distributed.world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr("advent.dataset.loader.distributed.rank", lambda rank=rank: rank)
        parts.append(training_batches(part, source_data(part), "source", CPU, 0))
    for batch in expected:
        shares = [next(batches) for batches in parts for _ in range(accumulate)]
        for key in ("image", "label", "depth", "position"):
            assert torch.equal(torch.cat([share[key] for share in shares]), batch[key])


def test_the_cache_gives_the_same_crops(data: Path) -> None:
    config = config_of(data, *EVERYTHING)
    expected = list(islice(training_batches(config, source_data(config), "source", CPU, 0), 4))
    fill_cache(source_data(config), 1)
    dataset = source_data(config)
    assert dataset.cache is not None
    assert dataset.cache.used
    assert_equal_batches(training_batches(config, dataset, "source", CPU, 0), iter(expected), 4)


def test_pseudo_labels_follow_their_images(data: Path, tmp_path: Path) -> None:
    """Pseudo labels that mark the left half of every image: so does the mirrored half of a mirrored image."""
    config = config_of(data, "AUGMENT.FLIP=true")
    half = np.zeros((48, 64), np.uint8)
    half[:, :32] = 1
    for name in target_data(config).names:
        tiny_data.write_png(tmp_path / "labels" / name, half)
    dataset = target_data(config, label_dir=tmp_path / "labels")
    plain = {name: dataset[index]["image"] for index, name in enumerate(dataset.names)}
    seen = set()
    for batch in islice(training_batches(config, dataset, "source", CPU, 0), 8):
        for name, image, label in zip(batch["name"], batch["image"], batch["label"], strict=True):
            mirrored = bool(label[0, -1])
            seen.add(mirrored)
            assert torch.equal(label, torch.from_numpy(half[:, ::-1].copy() if mirrored else half))
            assert torch.equal(image, plain[name].flip(-1) if mirrored else plain[name])
    assert seen == {False, True}


def test_indices_are_read_without_augmentation(data: Path) -> None:
    config = config_of(data, *EVERYTHING)
    dataset: StreetDataset = source_data(config)
    change = Augmentation(config.AUGMENT, SEED, "source")
    (batch,) = load_batches(dataset, 0, CPU, [[1]], change)
    assert "position" not in batch
    assert torch.equal(batch["image"][0], dataset[1]["image"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["AUGMENT.CROP=[640,700]"],
            r"AUGMENT\.CROP: \[640, 700\] is larger than TRAIN\.INPUT_SIZE_TARGET: \[1024, 512\]",
        ),
        (["AUGMENT.CROP=[1300,512]"], r"larger than TRAIN\.INPUT_SIZE_SOURCE: \[1280, 760\]"),
        (["AUGMENT.CROP=[16,512]"], "too small"),
        (["AUGMENT.CROP=512"], r"want list of 2 numbers, got '512'; for example AUGMENT\.CROP=\[512,512\]"),
        (["AUGMENT.SCALE=[0.5,0.9]"], r"needs a zoom of at least 1; raise SCALE or lower CROP"),
        (["AUGMENT.SCALE=[2,1]"], "smaller zoom first"),
        (["AUGMENT.SCALE=[0,1]"], r"from 0\.1 to 10"),
        (["AUGMENT.JITTER=0.6"], r"too large; at most 0\.5"),
        (["AUGMENT.DOMAINS=target"], "none of both, source"),
    ],
)
def test_config_errors_name_key_and_fix(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_config("ep1:daf", overrides)
    assert "\n" not in str(error.value)


# The changes of a self-training step, on the device.

MEAN = (104.0, 116.7, 122.7)


def network_images(count: int) -> torch.Tensor:
    pixels = np.random.RandomState(1).randint(0, 256, (count, 3, 24, 30)).astype(np.float32)
    pixels[:, :, :4] = pixels[:, :1, :4]  # gray rows: they have no hue
    return torch.from_numpy(pixels) - torch.tensor(MEAN)[:, None, None]


def rgb(images: torch.Tensor) -> torch.Tensor:
    return ((images + torch.tensor(MEAN)[:, None, None]) / 255).flip(-3)


@pytest.mark.parametrize("factors", [(1.2, 0.8, 1.1, 0.1), (0.8, 1.2, 0.8, -0.2), (1.0, 1.0, 1.0, 0.5)])
def test_color_jitter_is_torchvisions(factors: tuple[float, float, float, float]) -> None:
    images = network_images(2)
    changed = color_jitter(images, torch.tensor([factors, (1.0, 1.0, 1.0, 0.0)]), torch.tensor(MEAN))
    expected = transforms.adjust_brightness(rgb(images[0]), factors[0])
    expected = transforms.adjust_contrast(expected, factors[1])
    expected = transforms.adjust_saturation(expected, factors[2])
    expected = transforms.adjust_hue(expected, factors[3])
    torch.testing.assert_close(rgb(changed[0]), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(changed[1], images[1], atol=2e-4, rtol=0)  # factors of 1 keep an image


@pytest.mark.parametrize("sigma", [0.15, 0.6, 1.15])
def test_gaussian_blur_is_torchvisions(sigma: float) -> None:
    images = network_images(2)
    expected = transforms.gaussian_blur(images[0], [11, 11], [sigma, sigma])
    changed = gaussian_blur(images, torch.tensor([sigma, 0.9]))
    torch.testing.assert_close(changed[0], expected, atol=1e-3, rtol=0)
    wide = transforms.gaussian_blur(images[0], [21, 21], [sigma, sigma])  # 11 pixels are enough
    torch.testing.assert_close(changed[0], wide, atol=1e-2, rtol=0)


def test_strong_augmentation_applies_what_was_drawn() -> None:
    images, positions = network_images(16), torch.arange(100, 116)
    changed = strong_augmentation(images, positions, SEED, MEAN)
    for image, position, actual in zip(images, positions.tolist(), changed, strict=True):
        drawn = draw_photometric(sample_rng(SEED, "mixed", position), 0.2, blur=True)
        expected = image[None]
        if drawn.jitter:
            expected = color_jitter(expected, torch.tensor([drawn[1:5]]), torch.tensor(MEAN))
        if drawn.sigma:
            expected = gaussian_blur(expected, torch.tensor([drawn.sigma]))
        torch.testing.assert_close(actual, expected[0], atol=1e-4, rtol=0)
        if not drawn.jitter and not drawn.sigma:
            assert torch.equal(actual, image)


def test_strong_augmentation_of_an_image_depends_on_its_position_only() -> None:
    images = network_images(2)
    both = strong_augmentation(images, torch.tensor([7, 8]), SEED, MEAN)
    one = strong_augmentation(images[1:], torch.tensor([8]), SEED, MEAN)
    torch.testing.assert_close(both[1:], one, atol=1e-4, rtol=0)
    assert not torch.equal(one, strong_augmentation(images[1:], torch.tensor([8]), SEED + 1, MEAN))
    assert not torch.equal(one, strong_augmentation(images[1:], torch.tensor([8]), SEED, MEAN, stream="masked"))


def test_probabilities_and_ranges_of_the_photometric_changes() -> None:
    drawn = [draw_photometric(sample_rng(SEED, "mixed", p), 0.2, blur=True) for p in range(2000)]
    assert abs(sum(d.jitter for d in drawn) / 2000 - 0.8) < 0.04
    assert abs(sum(d.sigma > 0 for d in drawn) / 2000 - 0.5) < 0.045
    for values, center in (
        ([d.brightness for d in drawn], 1),
        ([d.saturation for d in drawn], 1),
        ([d.hue for d in drawn], 0),
    ):
        assert center - 0.2 <= min(values) < center - 0.19
        assert center + 0.19 < max(values) <= center + 0.2
    sigmas = [d.sigma for d in drawn if d.sigma]
    assert 0.15 <= min(sigmas) < 0.17
    assert 1.13 < max(sigmas) <= 1.15


def test_streams_and_positions_have_numbers_of_their_own() -> None:
    first = {sample_rng(seed, stream, at).random() for seed in (0, 1) for stream in STREAMS for at in range(50)}
    assert len(first) == 2 * len(STREAMS) * 50
    assert sample_rng(3, "target", 12345678901).random() == sample_rng(3, "target", 12345678901).random()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_strong_augmentation_does_not_wait_for_the_device() -> None:
    images = network_images(2).cuda()
    strong_augmentation(images, torch.tensor([7, 8]), SEED, MEAN)
    torch.cuda.set_sync_debug_mode("error")
    try:
        strong_augmentation(images, torch.tensor([9, 10]), SEED, MEAN)
    finally:
        torch.cuda.set_sync_debug_mode("default")
