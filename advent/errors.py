"""Errors that a user can cause. Each message is one line: what, where, and how to mend it."""

from __future__ import annotations


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
