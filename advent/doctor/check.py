"""Check of one data set split: folders, pairs and file contents; in full, or on a sample before a stage."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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
from advent.utils.sampling import evenly_spaced

log = logging.getLogger(__name__)
OTHER_ROLES = ("labels", "depth", "camera")


@dataclass(frozen=True)
class CheckTarget:
    """One data set split to check. `needed`: roles whose absence is an error; `wanted`: roles that are checked."""

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
    """Check a split. Returns its findings, and digest -> name of every image read (to find duplicates across splits).

    quick: number of images to read, evenly spaced; 0: all.
    """
    findings = Findings(f"{subject.title}: {subject.root}", notes=[subject.note] if subject.note else [])
    try:
        existing_root(subject.root, subject.spec)
        spec = detect_version(subject.spec, subject.root, subject.split) if "labels" in subject.wanted else subject.spec
        resolved = resolve_layout(spec, subject.root, subject.split, list(subject.wanted))
        names = _names(subject, spec, resolved)
    except UserError as error:
        findings.errors.append(str(error))
        if subject.root.is_dir():
            findings.errors += locate_misplaced(subject.spec, subject.root, subject.split)
            findings.errors += match_paths(subject.spec, subject.root, ("images",))
        return findings, {}
    if spec.name != subject.spec.name:
        findings.notes.append(f"labels identified as {spec.name} by their ids; using its table")
    _count(findings, names, spec, resolved, subject)
    files, missing = _pair(findings, names, resolved, subject)
    # Labels that are needed only for scoring may be missing.
    lines = findings.warnings if missing == {"labels"} and subject.without_labels else findings.errors
    lines += match_paths(spec, subject.root, missing)
    chosen = [files[index] for index in evenly_spaced(len(files), quick or len(files))]
    facts = _inspect_all(chosen, spec, subject.title, workers)
    if len(chosen) < len(files):
        findings.rows.append(
            ("read", f"{len(chosen):,} of {len(files):,} images, evenly spaced; shares refer to these")
        )
    summarize(findings, facts, spec, subject.classes)
    return findings, {fact.digest: fact.name for fact in facts if fact.digest}


@main_only
def sanity_check(datasets: Mapping[str, StreetDataset], count: int) -> None:
    """Quick check before a stage (DATA_CHECK): read `count` images of every data set.

    datasets: role -> data set; its files are already paired. Raises DataError with the first error; warnings are
    logged. 0 images: nothing is read. Only rank 0 runs it.
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
        files = [Files(name, dataset.resolved.images / name, *others) for name, *others in columns]
        findings = Findings(role)
        if count:
            chosen = [files[index] for index in evenly_spaced(len(files), count)]
            facts = _inspect_all(chosen, dataset.spec, "", 0)
            summarize(findings, facts, dataset.spec, dataset.classes if dataset.label_files else None)
        if findings.errors:
            rest = f" (and {len(findings.errors) - 1} more)" if len(findings.errors) > 1 else ""
            raise DataError(f"{findings.errors[0]}{rest}; scripts/doctor.py with this --cfg lists all problems")
        for line in findings.warnings:
            log.info("%s %s: %s", role, dataset.spec.name, line)


def _names(subject: CheckTarget, spec: DatasetSpec, resolved: ResolvedLayout) -> list[str]:
    pattern, list_file = resolved.layout.names, subject.list_file
    if list_file is None and subject.split in spec.lists:
        list_file = subject.root / spec.lists[subject.split]
    if list_file is None:
        return scan(resolved.images, pattern)
    return checked_names(read_list(list_file), resolved.images, pattern, str(list_file))


def _count(
    findings: Findings, names: Sequence[str], spec: DatasetSpec, resolved: ResolvedLayout, subject: CheckTarget
) -> None:
    expected = spec.counts.get(subject.split)
    odd = expected is not None and expected != len(names)
    findings.rows.append(
        ("images", f"{len(names):,}" + (f" of {expected:,} expected" if expected else "") + f", in {resolved.images}")
    )
    if odd and subject.list_file is None:
        findings.warnings.append(f"{len(names):,} images, {expected:,} in the published set: incomplete or another set")


def _pair(
    findings: Findings, names: Sequence[str], resolved: ResolvedLayout, subject: CheckTarget
) -> tuple[list[Files], set[str]]:
    """Files of every image, and the roles with missing files."""
    paths = {role: [resolved.path(role, name) for name in names] for role in OTHER_ROLES if role in subject.wanted}
    missing = set()
    for role, files in paths.items():
        absent = [str(file) for file in files if file is not None and not file.is_file()]
        present = len(files) - len(absent) - files.count(None)
        findings.rows.append((role, f"{present:,} of {len(names):,}"))
        if present < len(files):
            missing.add(role)
        if present == 0 and role == "labels" and role not in subject.needed:
            findings.notes.append(
                subject.without_labels or "no labels: required for a source and for scoring, not for a target"
            )
        elif files.count(None):
            findings.errors.append(f"the spec has no pattern for {role}, which are required here")
        elif present == 0 and role not in subject.needed:
            findings.notes.append(f"no {role}")
        elif absent:
            findings.errors.append(named(f"missing {role}", absent))
        _orphans(findings, role, resolved, names)
    pairs = [
        Files(
            name, resolved.images / name, *[_if_file(paths[role][i]) if role in paths else None for role in OTHER_ROLES]
        )
        for i, name in enumerate(names)
    ]
    return pairs, missing


def _if_file(file: Path | None) -> Path | None:
    return file if file is not None and file.is_file() else None


def _orphans(findings: Findings, role: str, resolved: ResolvedLayout, names: Sequence[str]) -> None:
    """Warn of files of a role without an image: a sign of a half-unpacked archive."""
    pattern, folder = getattr(resolved.layout, role), resolved.folder(role)
    if _lists_a_part(names, resolved) or pattern is None or folder is None or not folder.is_dir():
        return
    keys = {resolved.key(name) for name in names}
    role_pattern = Layout(images=pattern).names
    extra = []
    for file in _scan(folder, role_pattern):
        fields = role_pattern.fields(file) or {}
        if "/".join(fields[f] for f in ("folder", "name") if f in fields) not in keys:
            extra.append(file)
    if extra:
        findings.warnings.append(named(f"{role} without an image", extra))


def _lists_a_part(names: Sequence[str], resolved: ResolvedLayout) -> bool:
    """Whether the image folder contains more images than the names."""
    return len(_scan(resolved.images, resolved.layout.names)) > len(names)


def _scan(folder: Path, pattern: NamePattern) -> list[str]:
    """`scan`, but an empty list for a folder without images."""
    try:
        return scan(folder, pattern)
    except DataError:
        return []


def _inspect_all(files: Sequence[Files], spec: DatasetSpec, title: str, workers: int) -> list[Facts]:
    """Inspect the files in threads: decoding and hashing release the GIL."""
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        inspected = pool.map(lambda item: inspect_files(item, spec), files)
        facts, samples = [], 0
        for fact in with_progress(inspected, title, len(files)) if title else inspected:
            samples += fact.depth_values is not None
            if samples > GUESSED_FROM:
                fact.depth_values = None  # for SYNTHIA's 9,400 images they would take 387 MiB
            facts.append(fact)
        return facts
