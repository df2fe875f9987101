"""Which classes a protocol has: named in its config, brought by one of its data sets, or by their number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advent.dataset.classes import ClassSet, classes_for, classes_from_mapping, load_classes
from advent.dataset.spec import load_spec
from advent.errors import ConfigError


def class_set(config: Any) -> ClassSet:
    """The protocol's classes: CLASSES, else those that SOURCE or TARGET brings, else by NUM_CLASSES.

    Raises ConfigError when they disagree in name or number.
    """
    classes = (
        _named(config.CLASSES) if config.CLASSES else _brought(config) or load_classes(classes_for(config.NUM_CLASSES))
    )
    if len(classes.names) != config.NUM_CLASSES:
        raise ConfigError(
            f"NUM_CLASSES: {config.NUM_CLASSES}, but the class set {classes.name} (CLASSES) has {len(classes.names)}; "
            "make them agree"
        )
    return classes


def _named(value: Any) -> ClassSet:
    return classes_from_mapping(value) if isinstance(value, Mapping) else load_classes(value)


def _brought(config: Any) -> ClassSet | None:
    """The classes of a data set that has its own; of two, both must have the same."""
    specs = [load_spec(config.SOURCE), load_spec(config.TARGET)]
    brought = [spec.classes for spec in specs if spec.classes is not None]
    if len({(classes.names, classes.name) for classes in brought}) > 1:
        one, other = brought
        raise ConfigError(
            f"SOURCE and TARGET bring two class sets, {one.name} and {other.name}; say in CLASSES which one is meant, "
            f"and give the other data set a table for it: ids: {{{one.name}: ...}}"
        )
    return brought[0] if brought else None
