"""Findings: the facts of single files summed up per data set split, and the text report of all splits."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from advent.dataset.classes import IGNORE, ClassSet
from advent.dataset.depth_formats import depth_kind
from advent.dataset.spec import DatasetSpec
from advent.doctor.common_mistakes import match_ids
from advent.doctor.inspect_files import Facts
from advent.errors import ConfigError, printable

FIRST = 5  # items listed by name; the others are counted
GUESSED_FROM = 24  # depth maps
WIDTH, INDENT = 118, 11  # of the report, in columns


@dataclass
class Findings:
    """Findings on one data set split. `rows`: facts as (label, text).

    `errors` stop a stage, `warnings` do not, `notes` are informational.
    """

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def named(what: str, items: Sequence[str]) -> str:
    """`what` with the number of items and the first few names."""
    rest = f" and {len(items) - FIRST:,} more" if len(items) > FIRST else ""
    return f"{what} ({len(items):,}): {', '.join(items[:FIRST])}{rest}"


def summarize(found: Findings, facts: Sequence[Facts], spec: DatasetSpec, classes: ClassSet | None) -> None:
    """Add the summary of all files' facts to the findings of a split."""
    found.errors += _grouped(trouble for fact in facts for trouble in fact.troubles)
    found.rows += [("sizes", _counted(f"{w}x{h}" for fact in facts if fact.image for w, h in [fact.image[0]]))]
    modes = [("image", [fact.image for fact in facts]), ("label", [fact.label for fact in facts])]
    found.rows += [
        ("modes", "; ".join(f"{role} {_counted(m[1] for m in many if m)}" for role, many in modes if any(many)))
    ]
    larger = [
        fact.name
        for fact in facts
        if fact.image and fact.label and fact.label[0] > fact.image[0] and not fact.published_unequal
    ]
    if larger:
        found.warnings.append(named("labels larger than their images (they are resized)", larger))
    if unequal := [fact.name for fact in facts if fact.published_unequal]:
        label = "labels of another size than their images, as in the published set: both are resized to the input size"
        found.notes.append(named(label, unequal))
    if turned := [fact.name for fact in facts if fact.turn.orientation != 1]:
        found.notes.append(named("images rotated by their EXIF orientation", turned))
    if damaged := [fact.name for fact in facts if fact.turn.damaged]:
        found.warnings.append(named("images with a damaged EXIF block, used as stored", damaged))
    _summarize_ids(found, facts, spec, classes)
    _summarize_depth(found, facts, spec)
    by_digest = defaultdict(list)
    for fact in facts:
        if fact.digest:
            by_digest[fact.digest].append(fact.name)
    duplicates = [" = ".join(names) for names in by_digest.values() if len(names) > 1]
    if duplicates:
        found.warnings.append(named("duplicate images", duplicates))


def _summarize_ids(findings: Findings, facts: Sequence[Facts], spec: DatasetSpec, classes: ClassSet | None) -> None:
    labelled = [fact.ids for fact in facts if fact.ids is not None]
    if not labelled:
        return
    counts = np.zeros(max(IGNORE + 1, *[max(ids) + 1 for ids in labelled]), np.int64)
    for ids in labelled:
        counts[list(ids)] += list(ids.values())
    seen = np.flatnonzero(counts)
    findings.errors += match_ids(spec, seen.tolist())
    findings.rows.append(("ids", f"{_ranges(seen.tolist())} of 0-{spec.max_label_id}"))
    if classes is None:
        return
    try:
        table = spec.table(classes)
    except ConfigError as error:
        findings.errors.append(str(error))
        return
    known = seen[seen < len(table)]
    train_ids, total = table[known], counts.sum()
    shares = [counts[known[train_ids == i]].sum() / total for i in range(len(classes))]
    findings.rows.append(
        ("classes", ", ".join(f"{n} {_percent(s)}" for n, s in zip(classes.names, shares, strict=True)))
    )
    void = known[train_ids == IGNORE]
    if len(void):
        words = ", ".join(f"{spec.label_name(int(i))} {_percent(counts[i] / total)}" for i in void)
        findings.rows.append(("no class", f"{_percent(counts[void].sum() / total)} of the pixels: {words}"))
    if counts[void].sum() == total:
        findings.errors.append(f"no label id maps to a class of {classes.name}: these are not the ids of {spec.name}")
    elif absent := [name for name, share in zip(classes.names, shares, strict=True) if share == 0]:
        findings.warnings.append(f"no pixel of {', '.join(absent)} in the {len(labelled):,} labels read")


def _summarize_depth(findings: Findings, facts: Sequence[Facts], spec: DatasetSpec) -> None:
    ranges = [fact.depth_range for fact in facts if fact.depth_range is not None]
    samples = [fact.depth_values for fact in facts if fact.depth_values is not None][:GUESSED_FROM]
    if not samples or spec.depth is None:
        return
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    words, fits = depth_kind(spec.depth, spec.name).guess(spec.depth, samples)
    zeros = float(np.mean([np.mean(values == 0) for values in samples]))
    zero = f", {_percent(zeros)} zeros" if zeros else ""
    findings.rows.append(("depth", f"{low:g} to {high:g}{zero}; looks like {words} (a guess)"))
    if not fits:
        declared = (
            f"{spec.depth.kind} in {spec.depth.unit}" if spec.depth.kind in ("distance", "inverse") else spec.depth.kind
        )
        findings.warnings.append(f"the depth looks like {words}, the spec says {declared}: view a depth map to decide")


def _grouped(troubles: Iterable[str]) -> list[str]:
    """Group problems with the same message (after the file name) into one line: the first, and how many more."""
    groups: dict[str, list[str]] = defaultdict(list)
    for trouble in troubles:
        words = trouble.partition(": ")[2]
        groups["".join(c for c in words if not c.isdigit())].append(trouble)
    lines = []
    for group in groups.values():
        names = [trouble.partition(": ")[0].rpartition("/")[2] for trouble in group[1:]]
        lines.append(group[0] + (f" (and {len(names):,} more: {', '.join(names[: FIRST - 1])})" if names else ""))
    return lines


def _counted(values: Iterable[str]) -> str:
    counts = Counter(values)
    text = ", ".join(f"{value} ({count:,})" for value, count in counts.most_common(FIRST))
    return text + (f" and {len(counts) - FIRST} more kinds" if len(counts) > FIRST else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else "<0.1 %"


def _ranges(ids: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> 0-2, 5."""
    parts: list[list[int]] = []
    for i in ids:
        if parts and i == parts[-1][-1] + 1:
            parts[-1].append(i)
        else:
            parts.append([i])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def text(findings: Sequence[Findings]) -> str:
    """Readable report of all findings, wrapped to WIDTH columns, with the conclusion as last line."""
    blocks = []
    for split in findings:
        lines = [split.title]
        groups = [("PROBLEM", split.errors), ("warning", split.warnings), ("note", split.notes)]
        rows = [*split.rows, *[(label, line) for label, group in groups for line in group]]
        for label, line in rows:
            lines += textwrap.wrap(
                printable(line),
                WIDTH,
                initial_indent=f"  {label:<{INDENT - 2}}",
                subsequent_indent=" " * INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, conclusion(findings)])


def conclusion(findings: Sequence[Findings]) -> str:
    """One line with the number of problems and warnings, or OK."""
    errors, warnings = (sum(len(getattr(split, kind)) for split in findings) for kind in ("errors", "warnings"))
    suffix = f", {warnings} warning{'s' * (warnings != 1)}" if warnings else ""
    if errors:
        return f"result: {errors} problem{'s' * (errors != 1)} to fix{suffix}"
    return f"result: OK{suffix}"


def shared(findings: Sequence[Findings], digests: Sequence[Mapping[str, str]]) -> None:
    """Warn of images that occur in two splits: images for scoring must not be trained on."""
    for later in range(1, len(findings)):
        for earlier in range(later):
            shared_digests = sorted(digests[later].keys() & digests[earlier].keys())
            if shared_digests:
                pairs = [f"{digests[later][digest]} = {digests[earlier][digest]}" for digest in shared_digests]
                other = findings[earlier].title.partition(":")[0]
                findings[later].warnings.append(named(f"images that are also in {other}", pairs))
