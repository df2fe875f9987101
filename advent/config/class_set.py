"""What a protocol's config takes from its data sets: the classes, and the geometry of the target's images."""

from __future__ import annotations

from advent.config.schema import ClassSetConfig, Config
from advent.dataset.classes import ClassSet, classes_for, classes_from_mapping, load_classes
from advent.dataset.spec import DatasetSpec, load_spec
from advent.errors import ConfigError


def class_set(config: Config) -> ClassSet:
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


def geometry_of(target: str) -> str | None:
    """How the images of the data set TARGET meet the input size; None where its spec cannot be loaded."""
    try:
        return load_spec(target).geometry
    except ConfigError:
        return None  # a stage that needs the data set says why


def target_spec(target: str, geometry: str | None) -> DatasetSpec:
    """The spec TARGET. Raises ConfigError where it brings images to the input size otherwise than GEOMETRY_TARGET."""
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
