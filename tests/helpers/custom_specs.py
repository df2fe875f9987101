"""Custom data set specs: written to a file, loaded and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.spec import load_spec
from helpers.dataset_layouts import C7

BINARY = """
name: mine
folder: mine
layouts: [{images: "images/{name}.png", labels: "masks/{name}.png", depth: "depth/{name}.%s"}]
classes:
  - {name: background, color: [0, 0, 0]%s}
  - {name: road, color: [128, 64, 128]%s}
"""


def spec_of(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "mine.yml"
    file.write_text(text)
    return load_spec(file)


def read(spec: Any, root: Path, split: str = "train", **options: Any) -> StreetDataset:
    classes = spec.classes or C7
    return StreetDataset(spec, root, split, classes, **{"size": (6, 4), "label_size": (6, 4), **options})
