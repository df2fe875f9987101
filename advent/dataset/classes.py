"""Class sets: names, colours and groups of train ids, from configs/classes/*.yml or a data set spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Strict, model_validator

from advent.config.schema import ClassSetConfig, key
from advent.errors import ConfigError, hint
from advent.utils.paths import find_yaml
from advent.utils.serialization import read_yaml
from advent.utils.validation import Many, YamlModel, validated

IGNORE = 255  # train id of pixels that are ignored in training and scoring
EXAMPLE = "configs/classes/street16.yml"
_BY_COUNT = {7: "street7", 16: "street16", 19: "cityscapes19"}


def _color(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) != 3 or any(part not in range(256) for part in value):
        raise ValueError(f"{str(value)[:80]} is not a colour: three values 0..255, such as [128, 64, 128]")
    return value


def _different(entries: tuple[E, ...]) -> tuple[E, ...]:
    names = [entry.name for entry in entries]
    if not 1 < len(names) < IGNORE or len(set(names)) != len(names):
        raise ValueError("a class set has 2..254 classes with different names")
    return entries


# YAML reads the names 12 and 0998 as a number and as text.
Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
Color = Annotated[tuple[int, int, int], Strict(False), BeforeValidator(_color)]


class ClassEntry(YamlModel):
    """One class of a class set."""

    name: Name = key(..., "name of the class")
    color: Color = key(..., "`[r, g, b]`, 0..255")


E = TypeVar("E", bound=ClassEntry)
ClassList = Annotated[tuple[E, ...], Strict(False), AfterValidator(_different)]


class ClassSet(YamlModel):
    """Classes of train ids 0..n-1."""

    name: Name = key(..., "name; without: that of the file")
    classes: ClassList[ClassEntry] = key(..., "entries `{name, color}` in the order of their train ids")
    rare_names: Many[Name] = key((), "classes that the ranking normalises by", alias="rare")
    subset_names: dict[Name, Many[Name]] = key({}, "name -> classes whose mean IoU is reported, too", alias="subset")

    @model_validator(mode="after")
    def _known_members(self) -> ClassSet:
        for member in (*self.rare_names, *(name for members in self.subset_names.values() for name in members)):
            if member not in self.names:
                raise ValueError(f"{member!r} is not one of its classes; {hint(member, self.names)}")
        return self

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each train id."""
        return tuple(entry.name for entry in self.classes)

    @cached_property
    def colors(self) -> tuple[Color, ...]:
        """RGB colour of each train id, 0..255."""
        return tuple(entry.color for entry in self.classes)

    @cached_property
    def rare(self) -> tuple[int, ...]:
        """Train ids of the rare classes."""
        return self._train_ids(self.rare_names)

    @cached_property
    def subset(self) -> dict[str, tuple[int, ...]]:
        """Name of a subset -> its train ids."""
        return {name: self._train_ids(members) for name, members in self.subset_names.items()}

    def _train_ids(self, members: Sequence[str]) -> tuple[int, ...]:
        return tuple(self.names.index(member) for member in members)

    def as_mapping(self) -> dict[str, Any]:
        """The class set as a mapping, as stored in a config and so in every checkpoint's config.yml."""
        return {
            "name": self.name,
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "rare": list(self.rare_names),
            "subset": {name: list(members) for name, members in self.subset_names.items()},
        }


def classes_for(num_classes: int) -> str:
    """Name of the protocol's class set with `num_classes` classes. Raises ConfigError for other counts."""
    if num_classes not in _BY_COUNT:
        known = ", ".join(f"{count} ({name})" for count, name in _BY_COUNT.items())
        raise ConfigError(f"NUM_CLASSES: {num_classes} has no class set; known: {known}; or set CLASSES")
    return _BY_COUNT[num_classes]


def load_classes(name_or_path: str | Path) -> ClassSet:
    """Load a class set by name (configs/classes/<name>.yml, any case) or path. Raises ConfigError with the file."""
    return _load(find_yaml(name_or_path, "classes"))


def classes_from_mapping(value: Mapping[str, Any]) -> ClassSet:
    """Inverse of `ClassSet.as_mapping`. Raises ConfigError."""
    given = validated(ClassSetConfig, value, "CLASSES", "the run's config.yml")
    if len(given.names) != len(given.colors):
        raise ConfigError("CLASSES: names and colors differ in number")
    entries = [{"name": name, "color": color} for name, color in zip(given.names, given.colors, strict=True)]
    raw = {"name": given.name, "classes": entries, "rare": given.rare, "subset": given.subset}
    return validated(ClassSet, raw, "CLASSES")


@cache
def _load(path: Path) -> ClassSet:
    raw = read_yaml(path)
    if isinstance(raw, dict) and "layouts" in raw:
        raise ConfigError(f"{path}: is a data set spec, not a class set; set SOURCE or TARGET to use it")
    return validated(ClassSet, {"name": path.stem, **raw} if isinstance(raw, dict) else raw, path, EXAMPLE)
