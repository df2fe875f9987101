"""Common mistakes with data sets, detected by file paths and by label ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from advent.dataset.file_lists import walk
from advent.dataset.spec import DatasetSpec

MOST_LISTED = 5000  # files that are listed to report what a folder contains instead


def match_paths(spec: DatasetSpec, root: Path, missing: Collection[str]) -> list[str]:
    """Messages of the spec's known mistakes that match by path. `missing`: roles with missing files."""
    messages = [
        mistake.message
        for mistake in spec.mistakes
        if mistake.path is not None
        and (mistake.when_missing is None or mistake.when_missing in missing)
        and next(root.glob(mistake.path), None) is not None
        and (mistake.unless is None or next(root.glob(mistake.unless), None) is None)
    ]
    return [line.replace("{root}", str(root)) for line in dict.fromkeys(messages)]


def match_ids(spec: DatasetSpec, seen: Collection[int]) -> list[str]:
    """Messages of the spec's known mistakes that match by label ids. `seen`: every id that occurs."""
    return [
        mistake.message
        for mistake in spec.mistakes
        if mistake.ids and set(seen) <= set(mistake.ids) and set(mistake.require_ids) <= set(seen)
    ]


def locate_misplaced(spec: DatasetSpec, root: Path, split: str) -> list[str]:
    """Possible reasons for a missing image folder: unpacked too deep, root too far in, other case, another suffix."""
    expected = [
        (layout.for_split(folder), base)
        for layout in spec.layouts
        for folder in spec.splits[split]
        if (base := layout.base("images", folder)) is not None
    ]
    messages = []
    for layout, base in expected:
        if (root / base).is_dir():
            messages += _other_files(root / base, str(layout.names))
            continue
        for child in sorted(path for path in root.iterdir() if path.is_dir()):
            if base.parts and (child / base).is_dir():
                messages.append(
                    f"{child} contains {base}: unpacked one folder too deep; move its content up, or set "
                    f"DATA_DIRECTORY_SOURCE / DATA_DIRECTORY_TARGET={child}"
                )
            if base.parts and child.name != base.parts[0] and child.name.lower() == base.parts[0].lower():
                messages.append(f"{child} should be called {base.parts[0]}")
        if base.parts and root.name == base.parts[0] and (root.parent / base).is_dir():
            messages.append(f"{root} is one folder too far in; the data set's folder is {root.parent}")
    return list(dict.fromkeys(messages))


def _other_files(folder: Path, pattern: str) -> list[str]:
    """Summary of the files in a folder that has no matching images."""
    suffixes: Counter[str] = Counter()
    for count, file in enumerate(walk(folder)):
        if count == MOST_LISTED:
            break
        suffixes[Path(file).suffix or "no suffix"] += 1
    if not suffixes:
        return [f"{folder} is empty"]
    contents = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(3))
    return [f"{folder} contains {contents}, but image names must match {pattern}"]
