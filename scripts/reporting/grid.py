"""Qualitative figure as in the paper: image, ground truth, every stage's prediction, depth; one row per image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from advent.utils.image_grid import image_grid, legend, note, stack
from advent.utils.sampling import evenly_spaced
from ida.pipeline.assets import FOLDER as GALLERY
from reporting.experiment import LABELS, Experiment

Tile = tuple[str, Path, str]  # caption, file, alternative text
TILE_WIDTH = 240


class Grid:
    """Images common to several experiments, with every stage's predictions."""

    def __init__(self, experiments: Sequence[Experiment], examples: int) -> None:
        shown_by = [{row["name"]: row for row in experiment.gallery.get("examples", [])} for experiment in experiments]
        having = [rows for rows in shown_by if rows]
        common = [name for name in (having[0] if having else {}) if all(name in rows for rows in having)]
        self.names = [common[index] for index in evenly_spaced(len(common), examples)]
        self.nothing_in_common = bool(having) and not common
        self._rows, self._experiments = shown_by, experiments

    def pictures(self, name: str) -> list[Tile]:
        """The tiles of one image."""
        tiles: list[Tile] = []
        several = len(self._experiments) > 1
        for experiment, rows in zip(self._experiments, self._rows, strict=True):
            row, folder = rows.get(name), experiment.path / GALLERY
            if row is None:
                continue
            if not tiles:
                tiles.append(("image", folder / row["image"], f"Photograph {name}"))
                if "truth" in row:
                    tiles.append(("ground truth", folder / row["truth"], f"True classes of {name}"))
            of = f"{experiment.name}: " if several else ""
            for stage, drawn in row["stages"].items():
                label = LABELS.get(stage, stage)
                alt = f"Classes that {of}{label} predicts for {name}"
                tiles.append((f"{of}{label}", folder / drawn["classes"], alt))
            depths = [(stage, drawn["depth"]) for stage, drawn in row["stages"].items() if "depth" in drawn]
            if depths:
                stage, file = depths[-1]
                alt = f"Depth that {of}{LABELS.get(stage, stage)} predicts for {name}, near is bright"
                tiles.append((f"{of}depth", folder / file, alt))
        return tiles

    def drawn(self) -> Image.Image | None:
        """The grid as one image with a class legend; None without images, or if a file is missing."""
        rows = [self.pictures(name) for name in self.names]
        if not rows or not all(file.is_file() for row in rows for _, file, _ in row):
            return None
        tiles = [[np.asarray(Image.open(file).convert("RGB")) for _, file, _ in row] for row in rows]
        height, width = tiles[0][0].shape[:2]
        columns = [(caption, [row[at] for row in tiles]) for at, (caption, _, _) in enumerate(rows[0])]
        picture = image_grid(columns, (TILE_WIDTH, max(1, round(TILE_WIDTH * height / width))))
        classes = self._experiments[0].config["CLASSES"]
        picture = stack(picture, legend(classes["names"], classes["colors"], picture.width))
        credit = self._experiments[0].gallery.get("credit")
        return stack(picture, note(f"Pictures: {credit}", picture.width)) if credit else picture
