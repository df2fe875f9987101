"""Data-loading throughput of one worker: a straightforward reader, this project's, with cache, with augmentation."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from advent.config.class_set import class_set
from advent.config.schema import Config
from advent.dataset.augment import Augmentation
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.build_cache import fill_cache
from advent.dataset.classes import load_classes
from advent.dataset.image_io import IMG_MEAN
from advent.dataset.loader import load_batches
from advent.dataset.sampling import Draw
from advent.dataset.spec import load_spec
from performance.timing import Row, row

IMAGES, ROUNDS = 16, 4
SOURCE, TARGET, NATIVE = (1280, 760), (1024, 512), (2048, 1024)


class PlainReader(Dataset[Any]):
    """A straightforward reader as baseline: Pillow, NumPy, one comparison per class, float arrays throughout."""

    def __init__(self, folder: Path, size: tuple[int, int], table: dict[int, int] | None) -> None:
        self.files, self.size, self.table = sorted(folder.rglob("*.png")), size, table

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        file = self.files[index]
        picture = Image.open(file).convert("RGB").resize(self.size, Image.Resampling.BICUBIC)
        image = np.asarray(picture, np.float32)[:, :, ::-1] - np.asarray(IMG_MEAN, np.float32)
        item: dict[str, Any] = {"image": image.transpose(2, 0, 1).copy()}
        if self.table is not None:
            label_file = str(file).replace("RGB", "parsed_LABELS")
            ids = np.asarray(Image.open(label_file).resize(self.size, Image.Resampling.NEAREST), np.float32)
            item["label"] = np.full(ids.shape, 255, np.float32)
            for label_id, train_id in self.table.items():
                item["label"][ids == label_id] = train_id
            depth: Any = cv2.imread(str(file).replace("RGB", "Depth"), cv2.IMREAD_UNCHANGED)
            resized = cv2.resize(depth, self.size, interpolation=cv2.INTER_NEAREST).astype(np.float32)
            item["depth"] = 65536 / (resized + 1)
        return item


def reading(device: torch.device, rounds: int) -> list[Row]:
    """Rates for SYNTHIA with label and depth at native size, and Cityscapes from 2048x1024 to 1024x512."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _pictures(root)
        classes, synthia, cityscapes = load_classes("street16"), load_spec("synthia"), load_spec("cityscapes")
        table = {ids[0]: index for index, ids in enumerate(synthia.ids["street16"].values())}
        cases = {
            "SYNTHIA": (
                PlainReader(root / "SYNTHIA/RGB", SOURCE, table),
                lambda **options: StreetDataset(
                    synthia,
                    root / "SYNTHIA",
                    "all",
                    classes,
                    size=SOURCE,
                    label_size=SOURCE,
                    with_labels=True,
                    with_depth=True,
                    **options,
                ),
            ),
            "Cityscapes": (
                PlainReader(root / "Cityscapes", TARGET, None),
                lambda **options: StreetDataset(
                    cityscapes, root / "Cityscapes", "train", classes, size=TARGET, **options
                ),
            ),
        }
        for name, (plain, ours) in cases.items():
            fill_cache(ours(cache_dir=root / "cache"))
            rates = {
                "plain reader": _rate(iter(DataLoader(plain, batch_size=1, num_workers=1, sampler=_order()))),
                "ours": _rate(_ours(ours(), device)),
                "ours, from the cache": _rate(_ours(ours(cache_dir=root / "cache"), device)),
            }
            for reader, rate in rates.items():
                rows.append(row(f"{name}, {reader}", per_second=rate, times=rate / rates["plain reader"]))
    return rows


def augmented_rate(config: Config, device: torch.device) -> float:
    """Source images per second of one worker with the config's augmentation, at its training size, one by one.

    The files are PNG of that size, with label and depth. Rare class sampling is left out.
    """
    width, height = config.AUGMENT.CROP or config.TRAIN.INPUT_SIZE_SOURCE
    size = (width, height)
    with tempfile.TemporaryDirectory() as folder:
        _source_pictures(Path(folder), size)
        dataset = StreetDataset(
            load_spec("synthia"),
            Path(folder),
            "all",
            class_set(config),
            size=size,
            label_size=size,
            with_labels=True,
            with_depth=True,
        )
        augment = Augmentation(config.AUGMENT, config.TRAIN.RANDOM_SEED, "source")
        draws = [[Draw(index, position)] for position, index in enumerate(_order())]
        return _rate(load_batches(dataset, 1, device, draws, augment))


def _ours(dataset: StreetDataset, device: torch.device) -> Any:
    return load_batches(dataset, 1, device, [[index] for index in _order()])


def _order() -> list[int]:
    return [index % IMAGES for index in range(IMAGES * (ROUNDS + 1))]


def _rate(batches: Any) -> float:
    """Batches per second after one warm-up round."""
    for _ in range(IMAGES):
        next(batches)
    began = time.perf_counter()
    return sum(1 for _ in batches) / (time.perf_counter() - began)


def _pictures(root: Path) -> None:
    """Synthetic images of realistic size with photographic noise: PNG compresses smooth images too well."""
    _source_pictures(root / "SYNTHIA", SOURCE)
    rng = np.random.default_rng(1)
    city = root / "Cityscapes/leftImg8bit/train/city"
    city.mkdir(parents=True)
    for index in range(IMAGES):
        _grainy(rng, NATIVE).save(city / f"{index}_leftImg8bit.png")


def _source_pictures(root: Path, size: tuple[int, int]) -> None:
    """Images with labels and depth in SYNTHIA's layout."""
    rng = np.random.default_rng(0)
    for folder in ("RGB", "parsed_LABELS", "Depth"):
        (root / folder).mkdir(parents=True)
    for index in range(IMAGES):
        name = f"{index:07d}.png"
        _grainy(rng, size).save(root / "RGB" / name)
        blocks = rng.choice([1, 2, 3, 4, 6, 8], (38, 64)).astype(np.uint8)
        label = cv2.resize(blocks, size, interpolation=cv2.INTER_NEAREST)
        Image.fromarray(label).save(root / "parsed_LABELS" / name)
        depth = cv2.resize(rng.integers(300, 65535, (38, 64)).astype(np.uint16), size)
        cv2.imwrite(str(root / "Depth" / name), depth)


def _grainy(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    width, height = size
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    return Image.fromarray(np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8))
