"""ADVENT's config module: the global `cfg` and `cfg_from_file`, for programs written against ADVENT.

This project does not read the global `cfg`; its typed config is in advent/config.
"""

from __future__ import annotations

from pathlib import Path

from easydict import EasyDict

from advent.config.loading import (
    as_config,
    check,
    config_digest,
    default_config,
    dump_config,
    find_config,
    flat,
    load_config,
    merge_file,
    plain,
)

__all__ = [
    "cfg",
    "cfg_from_file",
    "config_digest",
    "default_config",
    "dump_config",
    "find_config",
    "flat",
    "load_config",
    "plain",
]

cfg = EasyDict(default_config().model_dump())


def cfg_from_file(filename: str | Path) -> None:
    """Merge a YAML file into the global `cfg`. Raises ConfigError if it is invalid."""
    tree = plain(cfg)
    merge_file(tree, Path(filename))
    check(as_config(tree), str(filename))
    cfg.update(EasyDict(tree))
