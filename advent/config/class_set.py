"""Class set of a protocol, and the target's spec with its resize geometry checked against the config."""

from __future__ import annotations

from advent.config.schema import ClassSetConfig, Config
from advent.dataset.classes import ClassSet, classes_for, classes_from_mapping, load_classes
from advent.dataset.spec import DatasetSpec, load_spec
from advent.errors import ConfigError


def class_set(config: Config) -> ClassSet:
    """The protocol's classes: CLASSES, else those that SOURCE or TARGET defines, else the default of NUM_CLASSES.

    Raises ConfigError if the data sets define different classes, or their number is not NUM_CLASSES.
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


def geometry_of(target: str) -> str | None:
    """How images of the data set TARGET are resized to the input size; None if its spec cannot be loaded."""
    try:
        return load_spec(target).geometry
    except ConfigError:
        return None  # a stage that needs the data set reports the error


def target_spec(target: str, geometry: str | None) -> DatasetSpec:
    """The spec of TARGET. Raises ConfigError if its geometry (how images are resized) is not GEOMETRY_TARGET."""
    spec = load_spec(target)
    if geometry is not None and geometry != spec.geometry:
        raise ConfigError(
            f"GEOMETRY_TARGET: {geometry}, but the data set {spec.name} has geometry: {spec.geometry}; make them agree "
            "(a config.yml holds the geometry of its run; change it in the spec, not in the config)"
        )
    return spec


def _named(value: str | ClassSetConfig) -> ClassSet:
    return load_classes(value) if isinstance(value, str) else classes_from_mapping(value.model_dump())


def _brought(config: Config) -> ClassSet | None:
    """The classes that SOURCE or TARGET defines, or None. Raises ConfigError if both define different ones."""
    specs = [load_spec(config.SOURCE), load_spec(config.TARGET)]
    class_sets = [spec.classes for spec in specs if spec.classes is not None]
    if len({(classes.names, classes.name) for classes in class_sets}) > 1:
        first, second = class_sets
        raise ConfigError(
            f"SOURCE and TARGET define two class sets, {first.name} and {second.name}; choose one with CLASSES, and "
            f"give the other data set an id table for it: ids: {{{first.name}: ...}}"
        )
    return class_sets[0] if class_sets else None
