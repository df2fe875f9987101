"""Class sets: the names, colours and groups behind train ids. One YAML file each in configs/classes/."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from advent.dataset.paths import find_yaml
from advent.errors import ConfigError, hint
from advent.utils.serialization import read_yaml
from advent.utils.shape import fits

IGNORE = 255  # the train id of pixels that neither train nor score
_BY_COUNT = {7: "street7", 16: "street16", 19: "cityscapes19"}
_KEYS = ("name", "classes", "rare", "subset")

Color = tuple[int, int, int]


@dataclass(frozen=True)
class ClassSet:
    """What train ids 0..n-1 mean. `rare` and the values of `subset` are train ids; colours are RGB, 0..255."""

    name: str
    names: tuple[str, ...]
    colors: tuple[Color, ...]
    rare: tuple[int, ...] = ()
    subset: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)


def classes_for(num_classes: int) -> str:
    """Name of the class set of the protocol with that many classes. Raises ConfigError for other counts."""
    if num_classes not in _BY_COUNT:
        known = ", ".join(f"{count} ({name})" for count, name in _BY_COUNT.items())
        raise ConfigError(f"NUM_CLASSES: {num_classes} has no class set; known: {known}; or name one in CLASSES")
    return _BY_COUNT[num_classes]


def load_classes(name_or_path: str | Path) -> ClassSet:
    """A class set by name (configs/classes/<name>.yml, any case) or by path. Raises ConfigError naming the file."""
    return _load(find_yaml(name_or_path, "classes"))


@cache
def _load(path: Path) -> ClassSet:
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a class set is a mapping with the keys {', '.join(_KEYS)}")
    for key in raw:
        if key not in _KEYS:
            raise ConfigError(f"{path}: unknown key {key!r}; {hint(str(key), _KEYS)}")
    if not (fits(raw.get("rare"), ([str], None)) and fits(raw.get("subset"), ({str: [str]}, None))):
        raise ConfigError(f"{path}: 'rare' is a list of class names, 'subset' a mapping of such lists")
    try:
        names = tuple(str(entry["name"]) for entry in raw["classes"])
        colors = tuple((int(r), int(g), int(b)) for r, g, b in (entry["color"] for entry in raw["classes"]))
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{path}: 'classes' is a list of {{name: ..., color: [r, g, b]}}") from None
    if not 1 < len(names) < IGNORE or len(set(names)) != len(names):
        raise ConfigError(f"{path}: a class set has 2..254 classes with different names")
    if any(not 0 <= value <= 255 for color in colors for value in color):
        raise ConfigError(f"{path}: a colour is three values 0..255")
    subset = {str(key): _train_ids(path, names, members) for key, members in (raw.get("subset") or {}).items()}
    return ClassSet(str(raw.get("name", path.stem)), names, colors, _train_ids(path, names, raw.get("rare")), subset)


def _train_ids(path: Path, names: tuple[str, ...], members: list[str] | None) -> tuple[int, ...]:
    for member in members or []:
        if member not in names:
            raise ConfigError(f"{path}: {member!r} is not one of its classes; {hint(str(member), names)}")
    return tuple(names.index(member) for member in members or [])
