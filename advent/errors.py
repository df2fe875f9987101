"""Errors that a user can cause. Each message is one line: what, where, and how to mend it."""

from __future__ import annotations

import difflib
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
