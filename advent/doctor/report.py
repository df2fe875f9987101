"""The doctor's words: findings as text, a verdict, an exit code."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from advent.doctor.summarize import Findings, named
from advent.errors import printable

WIDTH, INDENT = 118, 11


def text(findings: Sequence[Findings]) -> str:
    """All findings, for people."""
    blocks = []
    for found in findings:
        lines = [found.title]
        groups = [("PROBLEM", found.errors), ("warning", found.warnings), ("note", found.notes)]
        rows = [*found.rows, *[(word, line) for word, lines_of in groups for line in lines_of]]
        for word, words in rows:
            lines += textwrap.wrap(
                printable(words),
                WIDTH,
                initial_indent=f"  {word:<{INDENT - 2}}",
                subsequent_indent=" " * INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, conclusion(findings)])


def conclusion(findings: Sequence[Findings]) -> str:
    """One line: whether the data will do."""
    errors, warnings = (sum(len(getattr(one, kind)) for one in findings) for kind in ("errors", "warnings"))
    asides = f", {warnings} warning{'s' * (warnings != 1)}" if warnings else ""
    if errors:
        return f"verdict: {errors} problem{'s' * (errors != 1)} to mend{asides}"
    return f"verdict: good to go{asides}"


def shared(findings: Sequence[Findings], digests: Sequence[Mapping[str, str]]) -> None:
    """Warn of images that stand in two splits: what is scored should not be trained on."""
    for later in range(1, len(findings)):
        for earlier in range(later):
            both = sorted(digests[later].keys() & digests[earlier].keys())
            if both:
                pairs = [f"{digests[later][one]} = {digests[earlier][one]}" for one in both]
                other = findings[earlier].title.partition(":")[0]
                findings[later].warnings.append(named(f"images that stand in {other}, too", pairs))
