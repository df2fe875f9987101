"""The examination of one split of a data set: folders, pairs, contents; in full, or of a sample before a stage."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from advent.dataset.base_dataset import StreetDataset
from advent.dataset.classes import ClassSet
from advent.dataset.file_lists import checked_names, read_list, scan
from advent.dataset.layout import Layout, NamePattern
from advent.dataset.resolved_layout import ResolvedLayout, existing_root, resolve_layout
from advent.dataset.spec_types import DatasetSpec
from advent.dataset.versions import detect_version
from advent.doctor.common_mistakes import locate_misplaced, match_paths
from advent.doctor.inspect_files import Facts, Files, inspect_files
from advent.doctor.summarize import GUESSED_FROM, Findings, named, summarize
from advent.errors import DataError, UserError
from advent.runtime.distributed import main_only
from advent.runtime.progress import with_progress

log = logging.getLogger(__name__)
OTHER_ROLES = ("labels", "depth", "camera")


@dataclass(frozen=True)
class CheckTarget:
    """What is to be examined. `needed`: roles without which it cannot serve; `wanted`: roles that are looked at."""

    title: str
    spec: DatasetSpec
    root: Path
    split: str
    classes: ClassSet | None = None
    needed: Collection[str] = ()
    wanted: Collection[str] = ()
    list_file: Path | None = None
    without_labels: str = ""
    note: str = ""


def check_split(subject: CheckTarget, quick: int = 0, workers: int = 0) -> tuple[Findings, dict[str, str]]:
    """Everything that can be said, and the digest of every image that was read (to find it in other splits, too).

    quick: so many images are read, spread evenly; 0: all of them.
    """
    found = Findings(f"{subject.title}: {subject.root}", notes=[subject.note] if subject.note else [])
    try:
        existing_root(subject.root, subject.spec)
        spec = detect_version(subject.spec, subject.root, subject.split) if "labels" in subject.wanted else subject.spec
        resolved = resolve_layout(spec, subject.root, subject.split, list(subject.wanted))
        names = _names(subject, spec, resolved)
    except UserError as error:
        found.errors.append(str(error))
        if subject.root.is_dir():
            found.errors += locate_misplaced(subject.spec, subject.root, subject.split)
            found.errors += match_paths(subject.spec, subject.root, ("images",))
        return found, {}
    if spec.name != subject.spec.name:
        found.notes.append(f"the labels are those of {spec.name}, told by their ids; its table is used")
    _count(found, names, spec, resolved, subject)
    files, missing = _pair(found, names, resolved, subject)
    # Labels that are only for scoring may be missing, whatever the reason.
    said = found.warnings if missing == {"labels"} and subject.without_labels else found.errors
    said += match_paths(spec, subject.root, missing)
    chosen = _evenly_spaced(files, quick)
    facts = _inspect_all(chosen, spec, subject.title, workers)
    if len(chosen) < len(files):
        found.rows.append(("read", f"{len(chosen):,} of {len(files):,} images, spread evenly; the shares are theirs"))
    summarize(found, facts, spec, subject.classes)
    return found, {one.digest: one.name for one in facts if one.digest}


@main_only
def sanity_check(datasets: Mapping[str, StreetDataset], count: int) -> None:
    """The quick form before a stage: read `count` images of every data set, refuse what could not be worked with.

    datasets: role -> data set, whose files are paired already. Raises DataError with the first trouble; warnings are
    logged. 0 images: nothing is read. Of several processes rank 0 looks.
    """
    for role, dataset in datasets.items():
        nothing: list[None] = [None] * len(dataset)
        columns = zip(
            dataset.names,
            dataset.label_files or nothing,
            dataset.depth_files or nothing,
            dataset.camera_files or nothing,
            strict=True,
        )
        files = [Files(name, dataset.resolved.images / name, *more) for name, *more in columns]
        found = Findings(role)
        if count:
            facts = _inspect_all(_evenly_spaced(files, count), dataset.spec, "", 0)
            summarize(found, facts, dataset.spec, dataset.classes if dataset.label_files else None)
        if found.errors:
            more = f" (and {len(found.errors) - 1} more)" if len(found.errors) > 1 else ""
            raise DataError(f"{found.errors[0]}{more}; scripts/doctor.py with this --cfg shows all that is amiss")
        for line in found.warnings:
            log.info("%s %s: %s", role, dataset.spec.name, line)


def _names(subject: CheckTarget, spec: DatasetSpec, resolved: ResolvedLayout) -> list[str]:
    pattern, list_file = resolved.layout.names, subject.list_file
    if list_file is None and subject.split in spec.lists:
        list_file = subject.root / spec.lists[subject.split]
    if list_file is None:
        return scan(resolved.images, pattern)
    return checked_names(read_list(list_file), resolved.images, pattern, str(list_file))


def _count(
    found: Findings, names: Sequence[str], spec: DatasetSpec, resolved: ResolvedLayout, subject: CheckTarget
) -> None:
    expected = spec.counts.get(subject.split)
    odd = expected is not None and expected != len(names)
    found.rows.append(
        ("images", f"{len(names):,}" + (f" of {expected:,} expected" if expected else "") + f", in {resolved.images}")
    )
    if odd and subject.list_file is None:
        found.warnings.append(f"{len(names):,} images, {expected:,} in the published set: a part, or another one")


def _pair(
    found: Findings, names: Sequence[str], resolved: ResolvedLayout, subject: CheckTarget
) -> tuple[list[Files], set[str]]:
    """The files of every image, and the roles of which some are missing."""
    paths = {role: [resolved.path(role, name) for name in names] for role in OTHER_ROLES if role in subject.wanted}
    missing = set()
    for role, files in paths.items():
        absent = [str(file) for file in files if file is not None and not file.is_file()]
        there = len(files) - len(absent) - files.count(None)
        found.rows.append((role, f"{there:,} of {len(names):,}"))
        if there < len(files):
            missing.add(role)
        if there == 0 and role == "labels" and role not in subject.needed:
            found.notes.append(
                subject.without_labels or "no labels: needed as a source and to score, never to adapt to"
            )
        elif files.count(None):
            found.errors.append(f"the spec has no pattern for {role}, which are needed here")
        elif there == 0 and role not in subject.needed:
            found.notes.append(f"no {role}")
        elif absent:
            found.errors.append(named(f"missing {role}", absent))
        _orphans(found, role, resolved, names)
    pairs = [
        Files(
            name, resolved.images / name, *[_there(paths[role][i]) if role in paths else None for role in OTHER_ROLES]
        )
        for i, name in enumerate(names)
    ]
    return pairs, missing


def _there(file: Path | None) -> Path | None:
    return file if file is not None and file.is_file() else None


def _orphans(found: Findings, role: str, resolved: ResolvedLayout, names: Sequence[str]) -> None:
    """Files of a role that belong to no image: a sign of a half-unpacked archive."""
    pattern, folder = getattr(resolved.layout, role), resolved.folder(role)
    if _lists_a_part(names, resolved) or pattern is None or folder is None or not folder.is_dir():
        return
    keys = {resolved.key(name) for name in names}
    own = Layout(images=pattern).names
    extra = []
    for file in _scan(folder, own):
        fields = own.fields(file) or {}
        if "/".join(fields[f] for f in ("folder", "name") if f in fields) not in keys:
            extra.append(file)
    if extra:
        found.warnings.append(named(f"{role} that belong to no image", extra))


def _lists_a_part(names: Sequence[str], resolved: ResolvedLayout) -> bool:
    """Whether the names are only a part of what lies in the images' folder."""
    return len(_scan(resolved.images, resolved.layout.names)) > len(names)


def _scan(folder: Path, pattern: NamePattern) -> list[str]:
    """`scan`, with an empty list for a folder without images."""
    try:
        return scan(folder, pattern)
    except DataError:
        return []


def _evenly_spaced(files: Sequence[Files], count: int) -> list[Files]:
    if not 0 < count < len(files):
        return list(files)
    return [files[i] for i in np.linspace(0, len(files) - 1, count).round().astype(int)]


def _inspect_all(files: Sequence[Files], spec: DatasetSpec, title: str, workers: int) -> list[Facts]:
    """Read the files in threads: decoding and hashing leave Python's lock."""
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        reading = pool.map(lambda one: inspect_files(one, spec), files)
        facts, samples = [], 0
        for one in with_progress(reading, title, len(files)) if title else reading:
            samples += one.depth_values is not None
            if samples > GUESSED_FROM:
                one.depth_values = None  # of the 9,400 of SYNTHIA they would take 387 MiB
            facts.append(one)
        return facts
