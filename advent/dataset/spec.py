"""What differs between data sets, as data: where files lie, what label ids mean, how sizes are met.

One YAML file each in configs/datasets/; a new data set is a new file there (or anywhere, given by path) and no code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from advent.dataset.classes import IGNORE, ClassSet
from advent.dataset.geometry import GEOMETRIES
from advent.dataset.paths import find_yaml
from advent.errors import ConfigError, hint
from advent.utils.serialization import read_yaml
from advent.utils.shape import fits

MAX_ID = 65535  # label files are 8 or 16 bits deep
EXAMPLE = "configs/datasets/synthia.yml"
# What each key holds in YAML; null stands for a key that is left out.
SHAPES: dict[str, Any] = {
    "name": str,
    "folder": str,
    "layouts": [{str: str}],
    "splits": {(str, int): [(str, int)]},
    "ids": {str: {(str, int): [(int, str)]}},
    "max_label_id": int,
    "label_hint": (str, None),
    "geometry": str,
    "fill_label": (int, None),
    "depth": ({str: str}, None),
    "score_size": ([int], None),
    "counts": ({str: int}, None),
}


@dataclass(frozen=True)
class Layout:
    """File patterns relative to the data set's root; {split} is a folder, {name} what an image's files share."""

    images: str
    labels: str | None = None
    depth: str | None = None
    camera: str | None = None

    def image_folder(self, split_folder: str) -> Path:
        """The folder that image names are relative to: everything before the component that holds {name}."""
        return Path(os.path.dirname(self.images.split("{name}")[0]).format(split=split_folder))

    @property
    def image_ending(self) -> tuple[str, str]:
        """What stands before and after {name} in an image's path relative to the image folder."""
        before, after = self.images.split("{name}")
        return before[len(os.path.dirname(before)) :].lstrip("/"), after

    def path(self, role: str, split_folder: str, key: str) -> Path | None:
        """Path of one role ('images', 'labels', 'depth', 'camera') relative to the root; None if it has no pattern."""
        pattern = getattr(self, role)
        return Path(pattern.format(split=split_folder, name=key)) if pattern else None


@dataclass(frozen=True)
class DatasetSpec:
    """One data set. Sizes are (width, height); `ids` is class set -> class name -> label ids."""

    name: str
    folder: str
    layouts: tuple[Layout, ...]
    splits: dict[str, tuple[str, ...]]
    ids: dict[str, dict[str, tuple[int, ...]]]
    max_label_id: int
    label_hint: str | None = None
    geometry: str = "stretch"
    fill_label: int = IGNORE
    depth: str | None = None
    score_size: tuple[int, int] | None = None
    counts: dict[str, int] | None = None

    @property
    def wrong_id(self) -> str:
        """The end of an error that starts with a file and a label id above max_label_id."""
        hint = self.label_hint or "these are not its labels, or max_label_id in its spec is wrong"
        return f"is not in {self.name} (0..{self.max_label_id}, or 255); {hint}"

    def table(self, classes: ClassSet) -> np.ndarray:
        """Lookup table label id -> train id, uint8; every id without a class is 255."""
        if classes.name not in self.ids:
            raise ConfigError(
                f"data set {self.name} has no table for the class set {classes.name} (it has: {', '.join(self.ids)})"
            )
        table = np.full(max(IGNORE, self.max_label_id) + 1, IGNORE, np.uint8)
        for class_name, label_ids in self.ids[classes.name].items():
            if class_name not in classes.names:
                raise ConfigError(
                    f"data set {self.name}: {class_name!r} is no class of {classes.name}; "
                    f"{hint(class_name, classes.names)}"
                )
            table[list(label_ids)] = classes.names.index(class_name)
        return table


def load_spec(name_or_path: str | Path) -> DatasetSpec:
    """A spec by name (configs/datasets/<name>.yml, any case) or by path. Raises ConfigError naming the file."""
    return _load(find_yaml(name_or_path, "datasets"))


@cache
def _load(path: Path) -> DatasetSpec:
    raw = _read(path)
    known = [field.name for field in fields(DatasetSpec)]
    for key, value in raw.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; {hint(str(key), [*known, 'base'])}")
        if not fits(value, SHAPES[key]):
            raise ConfigError(f"{path}: {key}: {str(value)[:80]!r} is not of the right form; see {EXAMPLE}")
    missing = [key for key in ("name", "folder", "layouts", "splits", "ids", "max_label_id") if raw.get(key) is None]
    if missing:
        raise ConfigError(f"{path}: the key {missing[0]!r} is missing")
    try:
        spec = DatasetSpec(**{**raw, **_parsed(raw)})
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ConfigError(f"{path}: no data set's description ({error}); see {EXAMPLE}") from None
    _check(path, spec)
    return spec


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a file over those of its `base`, if it names one. A key given again replaces the whole value."""
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a data set's description is a mapping of keys")
    if "base" not in raw:
        return raw
    base = find_yaml(raw.pop("base"), "datasets")
    if base in (*seen, path):
        raise ConfigError(f"{path}: its bases form a circle")
    return {**_read(base, (*seen, path)), **raw}


def _parsed(raw: dict[str, Any]) -> dict[str, Any]:
    """The nested values of a spec in their final types."""
    depth, score_size = raw.get("depth"), raw.get("score_size")
    return {
        "layouts": tuple(Layout(**layout) for layout in raw["layouts"]),
        "splits": {str(split): tuple(map(str, folders)) for split, folders in raw["splits"].items()},
        "ids": {
            set_name: {str(name): _id_list(entries) for name, entries in table.items()}
            for set_name, table in raw["ids"].items()
        },
        "max_label_id": int(raw["max_label_id"]),
        "fill_label": IGNORE if raw.get("fill_label") is None else int(raw["fill_label"]),
        "depth": depth["kind"] if depth else None,
        "score_size": tuple(score_size) if score_size else None,
    }


def _id_list(entries: list[int | str]) -> tuple[int, ...]:
    """[7-9, 12] -> (7, 8, 9, 12)."""
    ids: list[int] = []
    for entry in entries:
        first, _, last = str(entry).partition("-")
        low, high = int(first or -1), int(last or first or -1)
        if not 0 <= low <= high <= MAX_ID:
            raise ValueError(f"{entry!r} are no ids")
        ids.extend(range(low, high + 1))
    return tuple(ids)


def _holds_only(pattern: str, names: Sequence[str]) -> bool:
    """Whether a format string is well-formed and has no fields but these."""
    try:
        parts = list(Formatter().parse(pattern))
    except ValueError:
        return False
    return all(field is None or (field in names and not form and not change) for _, field, form, change in parts)


def _check(path: Path, spec: DatasetSpec) -> None:
    """What types cannot say: the geometry is known, patterns hold {name}, ids are in range and name one class each."""
    if spec.geometry not in GEOMETRIES:
        raise ConfigError(f"{path}: geometry {spec.geometry!r}; {hint(str(spec.geometry), list(GEOMETRIES))}")
    if any(layout.images.count("{name}") != 1 for layout in spec.layouts) or not spec.layouts:
        raise ConfigError(f"{path}: every layout needs an 'images' pattern with {{name}} in it once")
    for pattern in (p for layout in spec.layouts for p in astuple(layout) if p is not None):
        if not _holds_only(pattern, ("split", "name")):
            raise ConfigError(f"{path}: layouts: {pattern!r}: in braces stand {{split}} and {{name}}, nothing else")
    if spec.score_size is not None and (len(spec.score_size) != 2 or min(spec.score_size) < 1):
        raise ConfigError(f"{path}: score_size is [width, height] in pixels")
    if not 0 < spec.max_label_id <= MAX_ID:
        raise ConfigError(f"{path}: max_label_id {spec.max_label_id} is not in 1..{MAX_ID}")
    if not (0 <= spec.fill_label <= spec.max_label_id or spec.fill_label == IGNORE):
        raise ConfigError(f"{path}: fill_label {spec.fill_label} is neither in 0..{spec.max_label_id} nor {IGNORE}")
    for set_name, table in spec.ids.items():
        every = [label_id for label_ids in table.values() for label_id in label_ids]
        twice = sorted({label_id for label_id in every if every.count(label_id) > 1})
        if twice:
            raise ConfigError(f"{path}: label id {twice[0]} belongs to two classes of {set_name}")
        if any(label_id > spec.max_label_id for label_id in every):
            raise ConfigError(f"{path}: label id {max(every)} of {set_name} exceeds max_label_id {spec.max_label_id}")
