"""Text report of the data checks: findings per split and a conclusion."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from advent.doctor.summarize import Findings, named
from advent.errors import printable

WIDTH, INDENT = 118, 11


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
