"""From what was found in single files to what is to be said of a data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from advent.dataset.classes import IGNORE, ClassSet
from advent.dataset.depth_formats import depth_kind
from advent.dataset.spec_types import DatasetSpec
from advent.doctor.common_mistakes import match_ids
from advent.doctor.inspect_files import Facts
from advent.errors import ConfigError

FIRST = 5  # so many of a kind are named, the others counted
GUESSED_FROM = 24  # depth maps


@dataclass
class Findings:
    """What is said of one split of a data set: facts in rows of (what, in words), and what is wrong with it.

    `errors` stop a stage, `warnings` do not, `notes` are for information.
    """

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def named(what: str, items: Sequence[str]) -> str:
    """How many, and the first few of them."""
    more = f" and {len(items) - FIRST:,} more" if len(items) > FIRST else ""
    return f"{what} ({len(items):,}): {', '.join(items[:FIRST])}{more}"


def summarize(found: Findings, facts: Sequence[Facts], spec: DatasetSpec, classes: ClassSet | None) -> None:
    """Add what the files hold to the findings of a data set."""
    found.errors += _grouped(trouble for one in facts for trouble in one.troubles)
    found.rows += [("sizes", _counted(f"{w}x{h}" for one in facts if one.image for w, h in [one.image[0]]))]
    modes = [("image", [one.image for one in facts]), ("label", [one.label for one in facts])]
    found.rows += [
        ("modes", "; ".join(f"{role} {_counted(m[1] for m in many if m)}" for role, many in modes if any(many)))
    ]
    larger = [
        one.name
        for one in facts
        if one.image and one.label and one.label[0] > one.image[0] and not one.published_unequal
    ]
    if larger:
        found.warnings.append(named("labels larger than their images, which will be resized", larger))
    if unequal := [one.name for one in facts if one.published_unequal]:
        what = "labels of another size than their images, as in the published set: both are brought to the input size"
        found.notes.append(named(what, unequal))
    if turned := [one.name for one in facts if one.turn.orientation != 1]:
        found.notes.append(named("images that are turned upright as their files say (EXIF)", turned))
    if damaged := [one.name for one in facts if one.turn.damaged]:
        found.warnings.append(named("images with a damaged EXIF block, taken as they are stored", damaged))
    _summarize_ids(found, facts, spec, classes)
    _summarize_depth(found, facts, spec)
    twins = defaultdict(list)
    for one in facts:
        if one.digest:
            twins[one.digest].append(one.name)
    same = [" = ".join(names) for names in twins.values() if len(names) > 1]
    if same:
        found.warnings.append(named("images that are there more than once", same))


def _summarize_ids(found: Findings, facts: Sequence[Facts], spec: DatasetSpec, classes: ClassSet | None) -> None:
    labelled = [one.ids for one in facts if one.ids is not None]
    if not labelled:
        return
    counts = np.zeros(max(IGNORE + 1, *[max(ids) + 1 for ids in labelled]), np.int64)
    for ids in labelled:
        counts[list(ids)] += list(ids.values())
    seen = np.flatnonzero(counts)
    found.errors += match_ids(spec, seen.tolist())
    found.rows.append(("ids", f"{_ranges(seen.tolist())} of 0-{spec.max_label_id}"))
    if classes is None:
        return
    try:
        table = spec.table(classes)
    except ConfigError as error:
        found.errors.append(str(error))
        return
    known = seen[seen < len(table)]
    train_ids, total = table[known], counts.sum()
    shares = [counts[known[train_ids == i]].sum() / total for i in range(len(classes))]
    found.rows.append(("classes", ", ".join(f"{n} {_percent(s)}" for n, s in zip(classes.names, shares, strict=True))))
    void = known[train_ids == IGNORE]
    if len(void):
        words = ", ".join(f"{spec.label_name(int(i))} {_percent(counts[i] / total)}" for i in void)
        found.rows.append(("no class", f"{_percent(counts[void].sum() / total)} of the pixels: {words}"))
    if counts[void].sum() == total:
        found.errors.append(f"no label means any class of {classes.name}: the ids are not those of {spec.name}")
    elif absent := [name for name, share in zip(classes.names, shares, strict=True) if share == 0]:
        found.warnings.append(f"no pixel of {', '.join(absent)} in the {len(labelled):,} labels that were read")


def _summarize_depth(found: Findings, facts: Sequence[Facts], spec: DatasetSpec) -> None:
    ranges = [one.depth_range for one in facts if one.depth_range is not None]
    samples = [one.depth_values for one in facts if one.depth_values is not None][:GUESSED_FROM]
    if not samples or spec.depth is None:
        return
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    words, fits = depth_kind(spec.depth, spec.name).guess(spec.depth, samples)
    zeros = float(np.mean([np.mean(values == 0) for values in samples]))
    zero = f", {_percent(zeros)} zeros" if zeros else ""
    found.rows.append(("depth", f"{low:g} to {high:g}{zero}; looks like {words} (a guess)"))
    if not fits:
        said = (
            f"{spec.depth.kind} in {spec.depth.unit}" if spec.depth.kind in ("distance", "inverse") else spec.depth.kind
        )
        found.warnings.append(f"the depth looks like {words}, the spec says {said}: look at a picture of it")


def _grouped(troubles: Iterable[str]) -> list[str]:
    """Troubles of one kind (the same words after the file's name) as one line: the first, and how many more."""
    groups: dict[str, list[str]] = defaultdict(list)
    for trouble in troubles:
        words = trouble.partition(": ")[2]
        groups["".join(c for c in words if not c.isdigit())].append(trouble)
    lines = []
    for many in groups.values():
        names = [one.partition(": ")[0].rpartition("/")[2] for one in many[1:]]
        lines.append(many[0] + (f" (and {len(names):,} more: {', '.join(names[: FIRST - 1])})" if names else ""))
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
