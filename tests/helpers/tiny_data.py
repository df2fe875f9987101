"""Tiny pair of domains on disk: striped images in SYNTHIA's and CamVid's layouts, and overrides for a tiny network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
# Bottom to top: road, sidewalk, building, pole, vegetation, sky, pedestrian, car.
SYNTHIA_IDS = [3, 4, 2, 7, 6, 1, 10, 8]
CAMVID_IDS = [3, 4, 1, 2, 5, 0, 9, 8]
COUNT = 8


def write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def picture(index: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """(image, stripe index per pixel): eight noisy stripes, one colour per class, shifted with the index."""
    rng = np.random.RandomState(1000 * shift + index)
    stripe = (np.arange(HEIGHT)[:, None] * 8 // HEIGHT + np.arange(WIDTH)[None] * 2 // WIDTH + index) % 8
    colours = np.random.RandomState(7).randint(0, 200, (8, 3)) + 20 * shift
    noisy = colours[stripe] + rng.randint(-15, 16, (HEIGHT, WIDTH, 3))
    return noisy.clip(0, 255).astype(np.uint8), stripe


def make_source(root: Path, count: int = COUNT) -> Path:
    for index in range(count):
        image, stripe = picture(index, 0)
        name = f"{index:07d}.png"
        write_png(root / "RGB" / name, image)
        write_png(root / "parsed_LABELS" / name, np.asarray(SYNTHIA_IDS, np.uint8)[stripe])
        (root / "Depth").mkdir(exist_ok=True)
        cv2.imwrite(str(root / "Depth" / name), (500 + 900 * stripe).astype(np.uint16))
    return root


def make_target(root: Path, count: int = COUNT, labels: bool = True) -> Path:
    for split in ("train", "val"):
        for index in range(count):
            image, stripe = picture(index + (50 if split == "val" else 0), 1)
            write_png(root / split / f"{index:04d}.png", image)
            if labels and split == "val":
                write_png(root / f"{split}annot" / f"{index:04d}.png", np.asarray(CAMVID_IDS, np.uint8)[stripe])
    return root


def make_data(root: Path) -> Path:
    make_source(root / "streets")
    make_target(root / "CamVid")
    return root


# ResNet with four blocks and eight stem channels, trained from scratch: an iteration takes hundredths of a second.
NETWORK = [
    "MODEL.ENCODER=resnet101",
    "MODEL.LAYERS=[1,1,1,1]",
    "MODEL.WIDTH=8",
    "MODEL.INIT=he",
    "MODEL.BN_AFFINE=trainable",
    "MODEL.OUTPUT_STRIDE=8",
    "MODEL.ENCODER_WEIGHTS=null",
    "TRAIN.RESTORE_FROM=null",
]
SIZES = ["TRAIN.INPUT_SIZE_SOURCE=[64,48]", "TRAIN.INPUT_SIZE_TARGET=[64,48]", "TEST.INPUT_SIZE_TARGET=[64,48]"]
SHORT = [
    "TRAIN.BATCH_SIZE_SOURCE=2",
    "TRAIN.BATCH_SIZE_TARGET=2",
    "TRAIN.MAX_ITERS=40",
    "TRAIN.EARLY_STOP=6",
    "TRAIN.SAVE_PRED_EVERY=3",
    "TRAIN.LOG_EVERY=2",
    "NUM_WORKERS=0",
    "ISL.THRESHOLD=0.1",
    "ISL.REFRESH_EVERY=3",
]
# For runs of several processes that are killed: twelve iterations, snapshots in between.
LONG = [
    "TRAIN.EARLY_STOP=12",
    "TRAIN.SAVE_PRED_EVERY=3",
    "TRAIN.LOG_EVERY=5",
    "TRAIN.BATCH_SIZE_SOURCE=1",
    "TRAIN.BATCH_SIZE_TARGET=1",
]


def command_line(root: Path, cfg: str, *options: str) -> list[str]:
    """Command-line arguments of a stage on the tiny data under `root`; results are written to `root / exp`."""
    common = ["--cfg", cfg, "--data-root", str(root), "--exp-root", str(root / "exp"), "--device", "cpu"]
    flags = [option for option in options if option.startswith("--")]
    return [*common, *flags, *NETWORK, *SIZES, *SHORT, *[option for option in options if not option.startswith("--")]]


def remove_end(root: Path, stage: str = "daf", last: int = 6) -> None:
    """Make a finished stage look interrupted: without its last snapshot and its completion record."""
    for file in (f"model_{last}.pth", "finished.json"):
        (root / "exp/quick" / stage / file).unlink()
