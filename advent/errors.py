"""Errors that a user can cause. Each message is one line: what, where, and how to mend it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """Base of everything a user can mend; the doors turn it into one line and exit code 2."""

    exit_code = 2


class ConfigError(UserError):
    """A config file, a KEY=VALUE override or a command-line value is wrong."""


class DataError(UserError):
    """A data set, one of its files, or its description is wrong or missing."""


class CheckpointError(UserError):
    """A checkpoint is missing, unreadable, or belongs to another network."""


class MissingStage(UserError):
    """What an earlier stage leaves behind is not there yet; the message names the command that makes it."""


class DeviceError(UserError):
    """The device that was asked for is not available."""


class StaleInput(UserError):
    """What a stage found was made from something else than what it works on."""


class FolderInUse(UserError):
    """Another run works in the folder."""


class NotFinite(UserError):
    """Losses, gradients or outputs are infinite or not a number; no update was made, nothing was written of them."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one most likely means."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.45)
    return found[0] if found else None


def hint(word: str, known: Iterable[str]) -> str:
    """The end of an error on an unknown word: the closest known one, else all of them."""
    known = list(known)
    found = closest(word, known)
    return f"did you mean {found}?" if found else f"known: {', '.join(known)}"


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")  # colours, titles, links


def printable(text: str) -> str:
    """Text on one line without terminal escapes and control characters: file names and other people's errors."""
    kept = (c if c.isprintable() else " " if c.isspace() else "?" for c in _ESCAPES.sub("", text))
    return "".join(kept)


def first_line(error: object, limit: int = 160) -> str:
    """The first line of another library's error, printable; the error's type where it has no text."""
    lines = [line for line in map(printable, str(error).strip().splitlines()) if line.strip()]
    return lines[0].strip()[:limit] if lines else type(error).__name__
