"""Every command of README and the documentation runs in its shortest form, or its block is marked as needing more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from advent.config.files import find_config
from advent.config.loading import protocol_sections
from helpers.documented import ROOT, Documented, all_commands, commands_of, pages
from helpers.documented_runs import (
    EXECUTED_PAGES,
    TABLE,
    Call,
    Covered,
    Install,
    call,
    check_covered,
    check_install,
    entry_of,
    make_reader,
)

COMMANDS = all_commands()
TO_CHECK = [c for c in COMMANDS if c.needs is None and c.page not in EXECUTED_PAGES]
FAST = {c.text: c for c in TO_CHECK if isinstance(entry := entry_of(c), Call) and not entry.slow}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reader(tmp_path_factory.mktemp("reader"))


def test_every_command_is_run_or_marked() -> None:
    unknown = [str(command) for command in TO_CHECK if entry_of(command) is None]
    assert unknown == [], "add them to helpers/documented_runs.py, or mark the block: <!-- needs: real data -->"
    assert len(COMMANDS) > 40


def test_commands_that_another_file_runs_are_in_it() -> None:
    wrong = []
    for command in TO_CHECK:
        entry = entry_of(command)
        if isinstance(entry, (Covered, Install)):
            problem = check_covered(entry) if isinstance(entry, Covered) else check_install(command)
            wrong += [f"{command}: {problem}"] if problem else []
    assert wrong == []
    for page, test in EXECUTED_PAGES.items():
        assert page in (ROOT / test).read_text(encoding="utf-8")


def test_every_entry_of_the_table_is_used() -> None:
    used = [entry_of(command) for command in TO_CHECK]
    assert [entry.pattern for entry in TABLE if entry not in used] == []


@pytest.mark.parametrize("text", FAST)
def test_command(text: str, reader: Path) -> None:
    command = FAST[text]
    entry = entry_of(command)
    assert isinstance(entry, Call)
    assert call(command, entry, reader, list(FAST).index(text)) in entry.codes, str(command)


INLINE = re.compile(r"`(?:python|bash) ([\w./-]+\.(?:py|sh))\b([^`]*)`")
ELSEWHERE = ("scripts/mine.py", "preperation/createLabels.py")  # the reader's own; a tool of IDD


def test_commands_in_the_text_name_existing_scripts_and_configs() -> None:
    """Commands in tables and sentences are not run."""
    wrong, count = [], 0
    for page in pages():
        for script, arguments in INLINE.findall(" ".join(page.read_text(encoding="utf-8").split())):
            count += 1
            if not (ROOT / script).is_file() and script not in ELSEWHERE:
                wrong.append(f"{page.name}: {script}: no such script")
            for name in re.findall(r"--cfg ([\w./:-]+)", arguments):
                reference = find_config(name) if name not in ("NAME", "FILE") else None
                if reference and reference.section and reference.section not in sections(reference.path):
                    wrong.append(f"{page.name}: {name}: no such section")
    assert wrong == []
    assert count > 40


def sections(config: Path) -> list[str]:
    return [section.name for section in protocol_sections(config)]


def test_a_command_without_entry_or_mark_is_found_with_its_line() -> None:
    text = "# Page\n\n```bash\npip install .\npython scripts/nothing.py --x \\\n    --y  # why\n```\n"
    found = commands_of(text, "docs/x.md")
    assert found == [
        Documented("docs/x.md", 4, "pip install ."),
        Documented("docs/x.md", 5, "python scripts/nothing.py --x --y"),
    ]
    assert [entry_of(command) is None for command in found] == [False, True]


def test_a_mark_covers_one_block_and_must_be_visible() -> None:
    block = "```bash\npython x.py\n```\n"
    text = f"# Page\n\nThis needs a GPU.\n\n<!-- needs: GPU -->\n{block}\n{block}"
    assert [command.needs for command in commands_of(text, "x.md")] == ["GPU", None]
    with pytest.raises(ValueError, match=r"x.md:3: the section's text does not say 'GPU'"):
        commands_of(f"# Page\n\n<!-- needs: GPU -->\n{block}", "x.md")
    with pytest.raises(ValueError, match=r"none of real data"):
        commands_of(f"luck\n<!-- needs: luck -->\n{block}", "x.md")
