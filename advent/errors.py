"""User errors. Each message is one line: what is wrong, where, and how to fix it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """Base class of user errors; the command line prints one line and exits with code 2."""

    exit_code = 2


class ConfigError(UserError):
    """A config file, a KEY=VALUE override or a command-line value is wrong."""


class DataError(UserError):
    """A data set, one of its files, or its spec is wrong or missing."""


class CheckpointError(UserError):
    """A checkpoint is missing, unreadable, or of another network."""


class MissingStage(UserError):
    """The output of an earlier stage is missing; the message contains the command that creates it."""


class DeviceError(UserError):
    """The requested device is not available."""


class StaleInput(UserError):
    """An existing input or output of a stage was made from other data, config or checkpoints than the current ones."""


class FolderInUse(UserError):
    """Another run is using the folder."""


class NotFinite(UserError):
    """Losses, gradients or outputs are infinite or NaN; they caused no update and were not written."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """Closest known word to a misspelt one, or None."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.45)
    return matches[0] if matches else None


def hint(word: str, known: Iterable[str]) -> str:
    """End of an error message about an unknown word: the closest known word, else all of them."""
    known = list(known)
    match = closest(word, known)
    return f"did you mean {match}?" if match else f"known: {', '.join(known)}"


def hints(word: str, known: Iterable[str], most: int = 3) -> str:
    """As `hint`, with up to `most` similar words."""
    known = list(known)
    matches = difflib.get_close_matches(word, known, n=most, cutoff=0.45)
    return f"did you mean {' or '.join(matches)}?" if matches else f"known: {', '.join(known)}"


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")  # colours, titles, links


def printable(text: str) -> str:
    """Untrusted text (file names, other libraries' errors) on one line without escapes and control characters."""
    kept = (c if c.isprintable() else " " if c.isspace() else "?" for c in _ESCAPES.sub("", text))
    return "".join(kept)


def first_line(error: object, limit: int = 160) -> str:
    """First line of another library's error, printable, cut to `limit` characters; the error's type without text."""
    lines = [line for line in map(printable, str(error).strip().splitlines()) if line.strip()]
    return lines[0].strip()[:limit] if lines else type(error).__name__
