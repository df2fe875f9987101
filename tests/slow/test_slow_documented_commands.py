"""Documented commands that take longer: whole chains on tiny data (the others: tests/cli)."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.documented import all_commands
from helpers.documented_runs import EXECUTED_PAGES, Call, call, entry_of, make_reader

SLOW = {
    command.text: command
    for command in all_commands()
    if command.needs is None
    and command.page not in EXECUTED_PAGES
    and isinstance(entry := entry_of(command), Call)
    and entry.slow
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reader(tmp_path_factory.mktemp("reader"))


@pytest.mark.parametrize("text", SLOW)
def test_command(text: str, reader: Path) -> None:
    command = SLOW[text]
    entry = entry_of(command)
    assert isinstance(entry, Call)
    assert call(command, entry, reader, list(SLOW).index(text)) in entry.codes, str(command)
