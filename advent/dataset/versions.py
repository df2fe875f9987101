"""Version detection for data sets whose releases differ in their label ids (Mapillary v1.2 and v2.0)."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from advent.dataset.file_lists import scan
from advent.dataset.image_io import read_ids
from advent.dataset.layout import Layout
from advent.dataset.resolved_layout import ResolvedLayout, resolve_layout
from advent.dataset.spec import load_spec
from advent.dataset.spec_types import DatasetSpec
from advent.errors import DataError
from advent.utils.sampling import evenly_spaced

log = logging.getLogger(__name__)
SAMPLE = 12  # label files; in a version with more ids, nearly every file contains an id above the other version's range


def detect_version(spec: DatasetSpec, root: Path, split: str) -> DatasetSpec:
    """Detect which of `spec` and its `versions` matches the labels under `root`.

    The ids in a sample of the label files decide. If they match several versions, the names in the data set's catalogue
    (Mapillary's config.json) decide, else the version with the fewest ids. A spec without versions is returned without
    opening files; the given spec is also returned if no version matches.
    """
    if not spec.versions:
        return spec
    matching: list[tuple[DatasetSpec, ResolvedLayout]] = []
    for version in (spec, *[load_spec(name) for name in spec.versions]):
        resolved = resolve_layout(version, root, split, ["labels"])
        highest = highest_id(resolved)
        if highest is not None and highest <= version.max_label_id:
            matching.append((version, resolved))
    if not matching:
        return spec
    first = matching[0][1].folder("labels")
    same_folder = [version for version, resolved in matching if resolved.folder("labels") == first]
    catalogued = [version for version in same_folder if matches_catalogue(version, root)]
    chosen = (catalogued or sorted(same_folder, key=lambda version: version.max_label_id))[0]
    if chosen.name != spec.name:
        log.info("%s: labels identified as %s; using its table", root, chosen.name)
    return chosen


def highest_id(resolved: ResolvedLayout) -> int | None:
    """Highest label id except 255 in a sample of the label files; None if none can be read."""
    folder = resolved.folder("labels")
    if folder is None or resolved.layout.labels is None or not folder.is_dir():
        return None
    try:
        names = scan(folder, Layout(images=resolved.layout.labels).names)
    except DataError:
        return None
    highest = []
    for index in evenly_spaced(len(names), SAMPLE):
        try:
            ids = read_ids(folder / names[index])
        except DataError:
            continue  # reported when the data set itself reads the file
        highest.append(int(ids[ids != 255].max(initial=0)))
    return max(highest, default=None)


def matches_catalogue(spec: DatasetSpec, root: Path) -> bool:
    """Whether a catalogue file under the root lists exactly this version's label names, in order."""
    return any(catalogue_names(root / file) == spec.label_names for file in spec.catalogue)


def catalogue_names(file: Path) -> tuple[str, ...] | None:
    """Label names (`readable`) in a file such as Mapillary's config.json; None if it is missing or in another form."""
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))["labels"]
        return tuple(str(label["readable"]) for label in labels)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
