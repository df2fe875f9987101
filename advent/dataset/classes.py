"""Class sets: names, colours and groups of train ids, from configs/classes/*.yml or a data set spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from advent.errors import ConfigError, hint
from advent.utils.paths import find_yaml
from advent.utils.serialization import read_yaml
from advent.utils.yaml_schema import fits

IGNORE = 255  # train id of pixels that are ignored in training and scoring
_BY_COUNT = {7: "street7", 16: "street16", 19: "cityscapes19"}
_KEYS = ("name", "classes", "rare", "subset")
_INLINE = {"name": str, "names": [str], "colors": [[int]], "rare": [str], "subset": {str: [str]}}

Color = tuple[int, int, int]


@dataclass(frozen=True)
class ClassSet:
    """Classes of train ids 0..n-1. `rare` and the values of `subset` are train ids; colours are RGB, 0..255."""

    name: str
    names: tuple[str, ...]
    colors: tuple[Color, ...]
    rare: tuple[int, ...] = ()
    subset: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def as_mapping(self) -> dict[str, Any]:
        """The class set as a mapping, as stored in a config and so in every checkpoint's config.yml."""
        return {
            "name": self.name,
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "rare": [self.names[i] for i in self.rare],
            "subset": {key: [self.names[i] for i in members] for key, members in self.subset.items()},
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
    if set(value) != set(_INLINE) or not all(fits(value[key], shape) for key, shape in _INLINE.items()):
        raise ConfigError(f"CLASSES: a class set in a config has the keys {', '.join(_INLINE)}, as in config.yml")
    entries = [{"name": n, "color": c} for n, c in zip(value["names"], value["colors"], strict=False)]
    if len(entries) != len(value["names"]) or len(entries) != len(value["colors"]):
        raise ConfigError("CLASSES: names and colors differ in number")
    return class_set("CLASSES", value["name"], entries, value["rare"], value["subset"])


@cache
def _load(path: Path) -> ClassSet:
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a class set is a mapping with the keys {', '.join(_KEYS)}")
    for key in raw:
        if key not in _KEYS:
            advice = "; set SOURCE or TARGET to use a data set spec" if key == "layouts" else ""
            raise ConfigError(f"{path}: unknown key {key!r}; {hint(str(key), _KEYS)}{advice}")
    return class_set(str(path), str(raw.get("name", path.stem)), raw.get("classes"), raw.get("rare"), raw.get("subset"))


def class_set(where: str, name: str, entries: Any, rare: Any = None, subset: Any = None) -> ClassSet:
    """Build a class set from parsed YAML values. `where` prefixes the error messages. Raises ConfigError."""
    if not (fits(rare, ([str], None)) and fits(subset, ({str: [str]}, None))):
        raise ConfigError(f"{where}: 'rare' is a list of class names, 'subset' a mapping of such lists")
    try:
        names = tuple(str(entry["name"]) for entry in entries)
        colors = tuple((int(r), int(g), int(b)) for r, g, b in (entry["color"] for entry in entries))
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{where}: 'classes' is a list of {{name: ..., color: [r, g, b]}}") from None
    if not 1 < len(names) < IGNORE or len(set(names)) != len(names):
        raise ConfigError(f"{where}: a class set has 2..254 classes with different names")
    if any(not 0 <= value <= 255 for color in colors for value in color):
        raise ConfigError(f"{where}: a colour is three values 0..255")
    groups = {str(key): _train_ids(where, names, members) for key, members in (subset or {}).items()}
    return ClassSet(name, names, colors, _train_ids(where, names, rare), groups)


def _train_ids(where: str, names: tuple[str, ...], members: Sequence[str] | None) -> tuple[int, ...]:
    for member in members or []:
        if member not in names:
            raise ConfigError(f"{where}: {member!r} is not one of its classes; {hint(str(member), names)}")
    return tuple(names.index(member) for member in members or [])
