"""Data set specs from YAML (configs/datasets/, or any path): a new data set needs one new file and no code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

from advent.dataset.classes import IGNORE, class_set
from advent.dataset.layout import FIELDS, ROLES, Layout
from advent.dataset.resize import GEOMETRIES
from advent.dataset.spec_types import UNITS_CM, DatasetSpec, DepthFormat, KnownMistake
from advent.errors import ConfigError, first_line, hint
from advent.utils.paths import find_yaml
from advent.utils.serialization import read_yaml
from advent.utils.yaml_schema import fits

__all__ = ["DatasetSpec", "load_spec"]

MAX_ID = 65535  # label files are 8 or 16 bits deep
EXAMPLE = "configs/datasets/synthia.yml and docs/own-data.md"
# YAML shape of each key; null is the same as an absent key.
SHAPES: dict[str, Any] = {
    "name": str,
    "folder": str,
    "layouts": [{str: str}],
    "splits": ({(str, int): [(str, int)]}, None),
    "classes": ([dict], None),
    "ids": ({str: {(str, int): [(int, str)]}}, None),
    "palette": (str, {int: [int]}, None),
    "label_names": ([str], None),
    "max_label_id": (int, None),
    "label_hint": (str, None),
    "geometry": str,
    "fill_label": (int, None),
    "depth": ({str: (str, int, float, [(int, float)])}, None),
    "score_size": ([int], None),
    "unequal": ([(int, str)], None),
    "counts": ({str: int}, None),
    "lists": ({str: str}, None),
    "mistakes": ([dict], None),
    "versions": ([str], None),
    "catalogue": ([str], None),
    "credit": (str, None),
}
REQUIRED = ("name", "folder", "layouts")
# YAML shapes of nested mappings.
DEPTH = {"kind": str, "unit": str, "scale": (int, float), "unknown": [(int, float)]}
MISTAKE = {"say": str, "path": str, "ids": [(int, str)], "with_ids": [int], "if_missing": str, "unless": str}


def load_spec(name_or_path: str | Path) -> DatasetSpec:
    """Load a spec by name (configs/datasets/<name>.yml, any case) or path. Raises ConfigError with the file."""
    return _load(find_yaml(name_or_path, "datasets"))


@cache
def _load(path: Path) -> DatasetSpec:
    raw = _read(path)
    for key, value in raw.items():
        if key not in SHAPES:
            raise ConfigError(f"{path}: unknown key {key!r}; {hint(str(key), [*SHAPES, 'base'])}")
        if not fits(value, SHAPES[key]):
            raise ConfigError(f"{path}: {key}: {str(value)[:80]!r} is not of the right form; see {EXAMPLE}")
    missing = [key for key in REQUIRED if raw.get(key) is None]
    if missing:
        raise ConfigError(f"{path}: the key {missing[0]!r} is missing; see {EXAMPLE}")
    try:
        spec = DatasetSpec(**_parsed(path, raw))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ConfigError(f"{path}: not a data set spec ({first_line(error, 1000)}); see {EXAMPLE}") from None
    _check(path, spec)
    return spec


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Keys of a spec file, merged over those of its `base`. A repeated key replaces the base's whole value."""
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a data set spec is a mapping of keys")
    if "base" not in raw:
        return raw
    base = find_yaml(raw.pop("base"), "datasets")
    if base in (*seen, path):
        raise ConfigError(f"{path}: circular chain of base files")
    inherited = _read(base, (*seen, path))
    inherited.pop("versions", None)  # another version's table would replace this file's own
    return {**inherited, **raw}


def _parsed(path: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """Values of a spec, converted to their final types."""
    given = {key: value for key, value in raw.items() if value is not None}
    names = tuple(given.get("label_names", ()))
    ids = {
        set_name: {str(name): _id_list(entries, names) for name, entries in table.items()}
        for set_name, table in given.get("ids", {}).items()
    }
    nested: dict[str, Any] = {"label_names": names}
    if "classes" in given:
        # A data set with its own classes: a class set with the data set's name, and label ids per class.
        nested["classes"] = class_set(str(path), given["name"], given["classes"])
        ids[given["name"]] = _own_ids(path, given["classes"], names)
    every = [i for table in ids.values() for label_ids in table.values() for i in label_ids]
    if "palette" in given:
        nested["palette"] = _palette(path, given["palette"], nested.get("classes"), ids.get(given["name"], {}))
        every += nested["palette"]
    sequences = ("mistakes", "versions", "catalogue")
    return {
        **{key: value for key, value in given.items() if key not in sequences},
        **nested,
        "layouts": tuple(Layout(**layout) for layout in given["layouts"]),
        "splits": {
            str(split): tuple(map(str, folders))
            for split, folders in given.get("splits", {"all": [""], "train": [""]}).items()
        },
        "ids": ids,
        "max_label_id": int(given.get("max_label_id", max([*every, len(names) - 1, 1]))),
        "depth": _depth(path, given["depth"]) if "depth" in given else None,
        "score_size": tuple(given["score_size"]) if "score_size" in given else None,
        "unequal": frozenset(name for entry in given.get("unequal", ()) for name in _numbered(str(entry))),
        "mistakes": tuple(_mistake(path, entry) for entry in given.get("mistakes", [])),
        "versions": tuple(given.get("versions", ())),
        "catalogue": tuple(given.get("catalogue", ())),
    }


def _own_ids(path: Path, entries: list[dict[str, Any]], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Class name -> label ids: the entry's `ids`, or else its position in the list."""
    for entry in entries:
        for key in entry:
            if key not in ("name", "color", "ids"):
                raise ConfigError(f"{path}: classes: unknown key {key!r}; {hint(str(key), ('name', 'color', 'ids'))}")
        if not fits(entry.get("ids"), ([(int, str)], None)):
            raise ConfigError(f"{path}: classes: {entry['name']}: ids is a list such as [7, 12-15]")
    return {
        str(entry["name"]): _id_list(entry["ids"] if entry.get("ids") is not None else [position], names)
        for position, entry in enumerate(entries)
    }


def _palette(path: Path, raw: Any, classes: Any, ids: dict[str, tuple[int, ...]]) -> dict[int, Any]:
    """Label id -> colour in label images; `palette: classes` uses the colours of the data set's own classes."""
    if isinstance(raw, str):
        if raw != "classes" or classes is None:
            raise ConfigError(f"{path}: palette is a mapping of label ids to [r, g, b], or 'classes' with own classes")
        raw = {ids[name][0]: color for name, color in zip(classes.names, classes.colors, strict=True)}
    palette = {int(label_id): tuple(color) for label_id, color in raw.items()}
    for label_id, color in palette.items():
        if len(color) != 3 or not all(0 <= value <= 255 for value in color) or not 0 <= label_id <= IGNORE:
            raise ConfigError(f"{path}: palette: {label_id}: {list(color)}: use an id 0..255 and three values 0..255")
    if len(set(palette.values())) != len(palette):
        raise ConfigError(f"{path}: palette: one colour is assigned to two ids")
    return palette


def _depth(path: Path, raw: dict[str, Any]) -> DepthFormat:
    _check_keys(path, "depth", raw, DEPTH, required="kind")
    if raw.get("unit", "cm") not in UNITS_CM:
        raise ConfigError(f"{path}: depth: unit {raw['unit']!r}; {hint(raw['unit'], UNITS_CM)}")
    if not 0 < raw.get("scale", 1.0) < float("inf"):
        raise ConfigError(f"{path}: depth: scale {raw['scale']} is not a positive number")
    unknown = tuple(float(value) for value in raw.get("unknown", ()))
    return DepthFormat(raw["kind"], raw.get("unit", "cm"), float(raw.get("scale", 1.0)), unknown)


def _mistake(path: Path, raw: dict[str, Any]) -> KnownMistake:
    _check_keys(path, "mistakes", raw, MISTAKE, required="say")
    if raw.get("if_missing") not in (None, *ROLES):
        raise ConfigError(f"{path}: mistakes: if_missing {raw['if_missing']!r}; {hint(raw['if_missing'], ROLES)}")
    ids = _id_list(raw.get("ids", []), ())
    with_ids = tuple(raw.get("with_ids", ()))
    return KnownMistake(raw["say"], raw.get("path"), ids, with_ids, raw.get("if_missing"), raw.get("unless"))


def _check_keys(path: Path, where: str, raw: dict[str, Any], shapes: dict[str, Any], required: str) -> None:
    for key, value in raw.items():
        if key not in shapes:
            raise ConfigError(f"{path}: {where}: unknown key {key!r}; {hint(str(key), shapes)}")
        if not fits(value, shapes[key]):
            raise ConfigError(f"{path}: {where}: {key}: {str(value)[:80]!r} is not of the right form; see {EXAMPLE}")
    if required not in raw:
        raise ConfigError(f"{path}: {where}: the key {required!r} is missing; see {EXAMPLE}")


def _id_list(entries: list[int | str], names: Sequence[str]) -> tuple[int, ...]:
    """[7-9, 12, Road] -> (7, 8, 9, 12, the position of Road in the label names)."""
    ids: list[int] = []
    positions = {name: position for position, name in reversed(list(enumerate(names)))}
    for entry in entries:
        if entry in positions:
            ids.append(positions[str(entry)])
            continue
        first, _, last = str(entry).partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not last)):
            advice = f"; {hint(str(entry), names)}" if names else ""
            raise ValueError(f"{entry!r} is not an id or a range of ids{advice}")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high <= MAX_ID:
            raise ValueError(f"{entry!r} is not an id or a range of ids")
        ids.extend(range(low, high + 1))
    return tuple(ids)


def _numbered(entry: str) -> list[str]:
    """`0998-1001` -> 0998, 0999, 1000, 1001; anything else is one name."""
    first, _, last = entry.partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        return [entry]
    if not 0 <= int(last) - int(first) <= MAX_ID:
        raise ValueError(f"{entry!r} is not a range of names")
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]


def _holds_only(pattern: str, names: Sequence[str]) -> bool:
    """Whether a format string is well-formed and has only fields in `names`."""
    try:
        parts = list(Formatter().parse(pattern))
    except ValueError:
        return False
    return all(field is None or (field in names and not form and not change) for _, field, form, change in parts)


def _check(path: Path, spec: DatasetSpec) -> None:
    """Check values beyond their types: known geometry, {name} in patterns, ids in range and in one class each."""
    if spec.geometry not in GEOMETRIES:
        raise ConfigError(f"{path}: geometry {spec.geometry!r}; {hint(str(spec.geometry), list(GEOMETRIES))}")
    _check_layouts(path, spec)
    if spec.score_size is not None and (len(spec.score_size) != 2 or min(spec.score_size) < 1):
        raise ConfigError(f"{path}: score_size is [width, height] in pixels")
    if not 0 < spec.max_label_id <= MAX_ID:
        raise ConfigError(f"{path}: max_label_id {spec.max_label_id} is not in 1..{MAX_ID}")
    if spec.fill_label is not None and not 0 <= spec.fill_label <= spec.max_label_id:
        raise ConfigError(f"{path}: fill_label {spec.fill_label} is not in 0..{spec.max_label_id}")
    for set_name, table in spec.ids.items():
        used_ids = [label_id for label_ids in table.values() for label_id in label_ids]
        twice = sorted(label_id for label_id, count in Counter(used_ids).items() if count > 1)
        if twice:
            raise ConfigError(f"{path}: label id {twice[0]} belongs to two classes of {set_name}")
        if any(label_id > spec.max_label_id for label_id in used_ids):
            raise ConfigError(
                f"{path}: label id {max(used_ids)} of {set_name} exceeds max_label_id {spec.max_label_id}"
            )


def _check_layouts(path: Path, spec: DatasetSpec) -> None:
    if any(layout.images.count("{name}") != 1 for layout in spec.layouts) or not spec.layouts:
        raise ConfigError(f"{path}: every layout needs an 'images' pattern with {{name}} in it once")
    for layout in spec.layouts:
        for pattern in (p for p in (getattr(layout, role) for role in ROLES) if p is not None):
            if not _holds_only(pattern, FIELDS):
                raise ConfigError(f"{path}: layouts: {pattern!r}: the fields are {{split}}, {{folder}} and {{name}}")
            if pattern.count("{folder}") > 1 or ("{folder}" in pattern and "{folder}" not in layout.images):
                raise ConfigError(f"{path}: layouts: {pattern!r}: {{folder}} may occur once, and 'images' needs it too")
            if pattern.find("{folder}") > pattern.find("{name}"):
                raise ConfigError(f"{path}: layouts: {pattern!r}: {{folder}} must precede {{name}}")
