"""Data sets that came out in several versions with other label ids: which one lies there, told by what is in it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np

from advent.dataset.file_lists import scan
from advent.dataset.image_io import read_ids
from advent.dataset.layout import Layout
from advent.dataset.resolved_layout import ResolvedLayout, resolve_layout
from advent.dataset.spec import load_spec
from advent.dataset.spec_types import DatasetSpec
from advent.errors import DataError

log = logging.getLogger(__name__)
SAMPLE = 12  # label files; nearly every one of a version with more ids holds an id that the other does not know


def detect_version(spec: DatasetSpec, root: Path, split: str) -> DatasetSpec:
    """The spec, or that of its `versions`, that the labels under `root` belong to.

    By the ids in a sample of the label files; where they would fit several, by the names in the data set's own
    catalogue (Mapillary's config.json), else the one with the fewest ids. A data set without versions is returned as it
    is, unopened; so is one whose labels fit none.
    """
    if not spec.versions:
        return spec
    fitting: list[tuple[DatasetSpec, ResolvedLayout]] = []
    for one in (spec, *[load_spec(name) for name in spec.versions]):
        resolved = resolve_layout(one, root, split, ["labels"])
        highest = highest_id(resolved)
        if highest is not None and highest <= one.max_label_id:
            fitting.append((one, resolved))
    if not fitting:
        return spec
    first = fitting[0][1].folder("labels")
    same = [one for one, resolved in fitting if resolved.folder("labels") == first]
    named = [one for one in same if matches_catalogue(one, root)]
    chosen = (named or sorted(same, key=lambda one: one.max_label_id))[0]
    if chosen.name != spec.name:
        log.info("%s: the labels are those of %s; its table is used", root, chosen.name)
    return chosen


def highest_id(resolved: ResolvedLayout) -> int | None:
    """The highest label id in a sample of the label files, 255 apart; None where none can be read."""
    folder = resolved.folder("labels")
    if folder is None or resolved.layout.labels is None or not folder.is_dir():
        return None
    try:
        names = scan(folder, Layout(images=resolved.layout.labels).names)
    except DataError:
        return None
    highest = []
    for index in np.linspace(0, len(names) - 1, min(SAMPLE, len(names))).round().astype(int):
        try:
            ids = read_ids(folder / names[index])
        except DataError:
            continue  # whoever reads this file in earnest says so
        highest.append(int(ids[ids != 255].max(initial=0)))
    return max(highest, default=None)


def matches_catalogue(spec: DatasetSpec, root: Path) -> bool:
    """Whether a catalogue under the root lists exactly this version's label names, in its order."""
    return any(catalogue_names(root / file) == spec.label_names for file in spec.catalogue)


def catalogue_names(file: Path) -> tuple[str, ...] | None:
    """The readable label names of a file in the form of Mapillary's config.json; None where there is no such file."""
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))["labels"]
        return tuple(str(label["readable"]) for label in labels)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
