"""Commands in the fenced Bash blocks of README and the documentation, and how tests run them in their shortest form.

A block that needs what no test has is marked in the page: `<!-- needs: real data -->` before the block, with the same
words in the section's visible text.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDS = ("real data", "GPU", "several GPUs", "several machines", "network access")
LANGUAGES = ("bash", "shell", "sh", "console")
MARK = re.compile(r"<!-- needs: (.+?) -->")
OPTIONAL = re.compile(r"\s\[[^\]]*\](?=\s|$)")  # `[--entropy]`, not `CROP=[512,512]`
CONTROL = ("export ", "#SBATCH", "#!")


@dataclass(frozen=True)
class Documented:
    """One command of a page: its first line, its text (continuations joined, comments removed), what it needs."""

    page: str
    line: int
    text: str
    needs: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def pages() -> list[Path]:
    """README, the guides and the pages of the documentation, without the archive and the changelog."""
    named = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "pretrained/README.md"]
    return [*named, *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "changelog.md")]


def commands_of(text: str, page: str) -> list[Documented]:
    """The commands of a page in order. Raises ValueError for an unknown mark, or one that readers do not see."""
    found: list[Documented] = []
    language: str | None = None
    needs: str | None = None
    pending, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("```"):
            if language is None:
                language = stripped.removeprefix("```").strip() or "none"
            else:
                language, needs, pending = None, None, ""
            continue
        if language is None:
            mark = MARK.fullmatch(stripped)
            if mark:
                needs = _known(mark[1], text, number, page)
            elif stripped.startswith("#"):
                needs = None
            continue
        if language not in LANGUAGES or not stripped or stripped.startswith(CONTROL):
            continue
        first = first if pending else number
        pending = f"{pending} {stripped}".strip()
        if pending.endswith("\\"):
            pending = pending[:-1].strip()
            continue
        for part in re.split(r"\s+&&\s+", without_comment(pending)) if not pending.startswith("(") else [pending]:
            if part:
                found.append(Documented(page, first, part, needs))
        pending = ""
    return found


def without_comment(line: str) -> str:
    """A line of Bash without its comment."""
    return re.sub(r"(^|\s)#\s.*$", "", line).strip()


def words_of(text: str) -> list[str]:
    """The words of a command without optional ones (`[--entropy]`, `[EXP ...]`)."""
    return shlex.split(OPTIONAL.sub("", text))


def all_commands() -> list[Documented]:
    """The commands of all pages."""
    found = []
    for page in pages():
        found += commands_of(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())
    return found


def _known(need: str, text: str, number: int, page: str) -> str:
    if need not in NEEDS:
        raise ValueError(f"{page}:{number}: needs: {need}: none of {', '.join(NEEDS)}")
    section = _section(text.splitlines(), number - 1)
    if need not in MARK.sub("", section):
        raise ValueError(f"{page}:{number}: the section's text does not say {need!r}, so readers do not see the mark")
    return need


def _section(lines: list[str], at: int) -> str:
    heads = [index for index, line in enumerate(lines) if re.match(r"#{1,6} ", line)]
    before = max((index for index in heads if index <= at), default=0)
    after = min((index for index in heads if index > at), default=len(lines))
    return " ".join(lines[before:after])
