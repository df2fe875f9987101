"""Data set specs from YAML (configs/datasets/, or any path): a new data set needs one new file and no code.

`docs/dataset-spec.md` is generated from the models in this module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationInfo, field_validator, model_validator

from advent.config.schema import key
from advent.config.value_types import Geometry, Number, Side
from advent.dataset.classes import IGNORE, ClassEntry, ClassList, ClassSet, Color, Name
from advent.dataset.layout import FIELDS, ROLES, Layout, Role
from advent.errors import ConfigError, hint
from advent.utils.paths import find_yaml
from advent.utils.serialization import read_yaml
from advent.utils.validation import Many, YamlModel, validated

MAX_ID = 65535  # label files are 8 or 16 bits deep
EXAMPLE = "configs/datasets/synthia.yml and docs/dataset-spec.md"
UNITS_CM = {"mm": 0.1, "cm": 1.0, "m": 100.0, "km": 100_000.0}


def _entries(value: Any) -> list[int | str]:
    if not isinstance(value, list) or any(type(entry) not in (int, str) for entry in value):
        raise ValueError(f"{str(value)[:80]!r} is not a list such as [7, 12-15]; see {EXAMPLE}")
    return value


def _ids(value: Any, info: ValidationInfo) -> list[int]:
    """[7-9, 12, Road] -> [7, 8, 9, 12, the position of Road in the label names]."""
    given = (info.context or {}).get("label_names")
    names = [str(name) for name in given] if isinstance(given, list) else []
    positions = {name: position for position, name in reversed(list(enumerate(names)))}
    ids: list[int] = []
    for entry in _entries(value):
        first, _, last = str(entry).partition("-")
        if entry in positions:
            ids.append(positions[str(entry)])
        elif first.isdecimal() and (last or first).isdecimal() and int(first) <= int(last or first) <= MAX_ID:
            ids.extend(range(int(first), int(last or first) + 1))
        else:
            advice = hint(str(entry), names) if names else "for example [7, 12-15]"
            raise ValueError(f"{entry!r} is not an id or a range of ids; {advice}")
    return ids


def _expanded_names(value: Any) -> frozenset[str]:
    """[0998-1001, clip/a] -> 0998, 0999, 1000, 1001, clip/a: a range, or one name."""
    names: set[str] = set()
    for entry in _entries(value):
        first, _, last = str(entry).partition("-")
        if not (first.isdecimal() and last.isdecimal()):
            names.add(str(entry))
        elif 0 <= int(last) - int(first) <= MAX_ID:
            names.update(f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
        else:
            raise ValueError(f"{entry!r} is not a range of names")
    return frozenset(names)


def _has_only(pattern: str, names: Sequence[str]) -> bool:
    """Whether a format string is well-formed and has only fields in `names`."""
    try:
        parts = list(Formatter().parse(pattern))
    except ValueError:
        return False
    return all(field is None or (field in names and not form and not change) for _, field, form, change in parts)


def _patterns(layout: Layout) -> Layout:
    if layout.images.count("{name}") != 1:
        raise ValueError("every layout needs an 'images' pattern with {name} in it once")
    for pattern in (p for p in (getattr(layout, role) for role in ROLES) if p is not None):
        if not _has_only(pattern, FIELDS):
            raise ValueError(f"{pattern!r}: the fields are {{split}}, {{folder}} and {{name}}")
        if pattern.count("{folder}") > 1 or ("{folder}" in pattern and "{folder}" not in layout.images):
            raise ValueError(f"{pattern!r}: {{folder}} may occur once, and 'images' needs it too")
        if pattern.find("{folder}") > pattern.find("{name}"):
            raise ValueError(f"{pattern!r}: {{folder}} must precede {{name}}")
    return layout


def _one_id_each(palette: dict[int, Color]) -> dict[int, Color]:
    if len(set(palette.values())) != len(palette):
        raise ValueError("one colour is assigned to two ids")
    return palette


Ids = Annotated[tuple[int, ...], Strict(False), BeforeValidator(_ids)]


class OwnClass(ClassEntry):
    """A class that a data set defines."""

    ids: Ids | None = key(None, "label ids, such as `[7, 12-15]`, or label names; without: the position in the list")


class DepthFormat(YamlModel):
    """Meaning of the values in a depth file. `kind`: name of a registered reader.

    For the kinds `distance` and `inverse`, value x `scale` is a distance in `unit`, or its reciprocal. Values in
    `unknown` (numbers, NaN) mark pixels without depth.
    """

    kind: str = key(..., "`distance`, `inverse`, `synthia_cm` (SYNTHIA) or `disparity` (Cityscapes)")
    unit: Literal["mm", "cm", "m", "km"] = key("cm", "unit of a distance: `mm`, `cm`, `m` or `km`")
    scale: Number = key(1.0, "value x `scale` is the distance in `unit`, or its inverse", gt=0)
    unknown: Many[float] = key((), "values of pixels without depth, such as `[0]` or `[.nan]`")

    @property
    def has_gaps(self) -> bool:
        """Whether some pixels may have no depth."""
        return self.kind == "disparity" or bool(self.unknown)


class RenderSetup(YamlModel):
    """How scripts/make_streets.py renders the data set: with the same setup, a missing folder is rendered again."""

    count: int = key(..., "number of scenes", ge=1)
    size: Annotated[tuple[Side, Side], Strict(False)] = key(..., "`[width, height]` in pixels")
    seed: int = key(0, "of all scenes", ge=0)
    style: Literal["synthia", "real"] = key(
        "synthia", "`synthia` (SYNTHIA's layout) or `real` (photographs' look, Cityscapes' layout)"
    )
    split: Literal["train", "val"] = key("train", "the split that is rendered: `train`, or `val` (style `real`)")
    sha256: str | None = key(None, "documented digest of the rendered files; another one is reported, not refused")

    @model_validator(mode="after")
    def _style_has_split(self) -> RenderSetup:
        if self.split == "val" and self.style == "synthia":
            raise ValueError("style synthia has no split val; use style: real, or split: train")
        return self


class KnownMistake(YamlModel):
    """A common mistake with a data set, and the message that explains it."""

    message: str = key(..., "the message; `{root}` is the data set's folder", alias="say")
    path: str | None = key(None, "a glob under the root that matches")
    ids: Ids = key((), "label ids: every id that occurs is one of them")
    require_ids: Many[int] = key((), "label ids that occur, all of them", alias="with_ids")
    when_missing: Role | None = key(None, "only if files of this role are missing", alias="if_missing")
    unless: str | None = key(None, "only if this glob matches nothing")


class DatasetSpec(YamlModel):
    """One data set. Sizes are (width, height)."""

    base: str | None = key(
        None,
        """another file whose keys are inherited, except those given here and `versions`; `null` removes an inherited
        key""",
    )
    name: str = key(..., "name of the data set, and of the class set that it defines, if any")
    folder: str = key(..., "folder, under the data root or absolute")
    layouts: Annotated[Many[Annotated[Layout, AfterValidator(_patterns)]], Field(min_length=1)] = key(
        ..., "path patterns with the fields `{split}`, `{folder}` and `{name}`; entries are tried in order"
    )
    splits: dict[Name, Many[Name]] = key(
        {"all": ("",), "train": ("",)}, "split -> folders for `{split}`; the first existing one is used"
    )
    lists: dict[str, str] = key({}, "split -> list file, relative to the folder; without: the folder is scanned")
    label_names: Many[str] = key((), "names of the label ids in order")
    own_classes: ClassList[OwnClass] | None = key(
        None, "classes that the data set defines; without: those of the protocol's class set", alias="classes"
    )
    ids: dict[Name, dict[Name, Ids]] = key(
        {},
        "class set -> class -> label ids (or label names), for protocols with that class set",
        validate_default=True,
    )
    palette: Annotated[dict[Annotated[int, Field(ge=0, le=IGNORE)], Color], AfterValidator(_one_id_each)] | None = key(
        None,
        """for labels in colours: label id -> `[r, g, b]`, or `classes`: the colours of the own classes; without: one
        channel of ids""",
    )
    max_label_id: Annotated[int, Field(ge=1, le=MAX_ID)] = key(
        None,
        "label ids above it are errors, 255 is always allowed; without: the largest id in this file",
        validate_default=True,
    )
    label_hint: str | None = key(None, "what to do about label ids above `max_label_id`: the end of the error")
    geometry: Geometry = key("stretch", "`stretch`, or `pad`: keep the aspect, pad below or right")
    fill_label: int | None = key(None, "the label id of padding; without: padding is ignored", ge=0)
    depth: DepthFormat | None = key(None, "format of the depth files")
    score_size: Annotated[tuple[Side, Side], Strict(False)] | None = key(
        None, "`[width, height]` at which labels are scored; without: their own size"
    )
    unequal: Annotated[frozenset[str], BeforeValidator(_expanded_names)] = key(
        frozenset(),
        """images (names without suffix, `0998-1001` for a range) whose published label has another size; the doctor
        notes them""",
    )
    counts: dict[str, int] = key({}, "split -> number of images in the published set, for the doctor")
    mistakes: Many[KnownMistake] = key((), "common mistakes that the doctor recognises")
    versions: Many[str] = key((), "specs of other versions, detected from label ids or catalogues")
    catalogue: Many[str] = key((), "files under the root that list the label names, as Mapillary's `config.json`")
    render: RenderSetup | None = key(
        None, "setup of a rendered data set, which is rendered on first use (needs the checkout)"
    )
    credit: str | None = key(None, "copyright holder and licence; shown beside the images in reports")

    @field_validator("ids")
    @classmethod
    def _with_own_ids(cls, tables: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        own, name = info.data.get("own_classes"), info.data.get("name")
        if not own or name is None:
            return tables
        ids = {entry.name: (i,) if entry.ids is None else entry.ids for i, entry in enumerate(own)}
        return {**tables, name: ids}

    @field_validator("palette", mode="before")
    @classmethod
    def _colors_of_classes(cls, value: Any, info: ValidationInfo) -> Any:
        own, tables = info.data.get("own_classes"), info.data.get("ids")
        if value == "classes" and own and tables:
            return {i: entry.color for entry in own for i in tables[info.data["name"]][entry.name][:1]}
        if isinstance(value, str):
            raise ValueError("palette is a mapping of label ids to [r, g, b], or 'classes' with own classes")
        return value

    @field_validator("max_label_id", mode="before")
    @classmethod
    def _largest_id(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            return value
        used = [i for table in info.data.get("ids", {}).values() for ids in table.values() for i in ids]
        return max([*used, *(info.data.get("palette") or ()), len(info.data.get("label_names", ())) - 1, 1])

    @model_validator(mode="after")
    def _keys_agree(self) -> DatasetSpec:
        if self.render is not None and self.render.split not in self.splits:
            raise ValueError(f"render: renders the split {self.render.split}, which is not in splits")
        if self.fill_label is not None and self.fill_label > self.max_label_id:
            raise ValueError(f"fill_label {self.fill_label} is not in 0..{self.max_label_id}")
        for set_name, table in self.ids.items():
            counts = Counter(label_id for label_ids in table.values() for label_id in label_ids)
            twice = sorted(label_id for label_id, count in counts.items() if count > 1)
            if twice:
                raise ValueError(f"label id {twice[0]} belongs to two classes of {set_name}")
            if max(counts, default=0) > self.max_label_id:
                raise ValueError(f"label id {max(counts)} of {set_name} exceeds max_label_id {self.max_label_id}")
        return self

    @cached_property
    def classes(self) -> ClassSet | None:
        """The class set that the data set defines, which has the data set's name; None without own classes."""
        if self.own_classes is None:
            return None
        entries = [entry.model_dump(exclude={"ids"}) for entry in self.own_classes]
        return ClassSet.model_validate({"name": self.name, "classes": entries})

    @property
    def wrong_id(self) -> str:
        """End of the error message for a label id above max_label_id; file and id precede it."""
        hint = self.label_hint or "these are not its labels, or max_label_id in its spec is wrong"
        return f"is not in {self.name} (0..{self.max_label_id}, or 255); {hint}"

    def label_name(self, label_id: int) -> str:
        """Name of a label id from the spec, else the id as text."""
        return self.label_names[label_id] if label_id < len(self.label_names) else str(label_id)

    def table(self, classes: ClassSet) -> np.ndarray:
        """Lookup table label id -> train id, uint8; ids without a class map to 255. Raises ConfigError."""
        if classes.name not in self.ids:
            known = f"it has: {', '.join(self.ids)}" if self.ids else "it has none: its images are unlabelled"
            raise ConfigError(
                f"data set {self.name} has no table for the class set {classes.name} ({known}); map its label "
                f"ids to classes under ids: {{{classes.name}: ...}} in its spec"
            )
        table = np.full(max(IGNORE, self.max_label_id) + 1, IGNORE, np.uint8)
        for class_name, label_ids in self.ids[classes.name].items():
            if class_name not in classes.names:
                raise ConfigError(
                    f"data set {self.name}: {class_name!r} is not a class of {classes.name}; "
                    f"{hint(class_name, classes.names)}"
                )
            table[list(label_ids)] = classes.names.index(class_name)
        return table

    def fill(self, table: np.ndarray) -> int:
        """Train id that labels are padded with."""
        return IGNORE if self.fill_label is None else int(table[self.fill_label])


def load_spec(name_or_path: str | Path) -> DatasetSpec:
    """Load a spec by name (configs/datasets/<name>.yml, any case) or path. Raises ConfigError with the file."""
    return _load(find_yaml(name_or_path, "datasets"))


@cache
def _load(path: Path) -> DatasetSpec:
    raw = _read(path)
    return validated(DatasetSpec, raw, path, EXAMPLE, context=raw)


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Keys of a spec file, merged over those of its `base`. A repeated key replaces the base's whole value."""
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a data set spec is a mapping of keys")
    if raw.get("base") is None:
        return raw
    base = find_yaml(raw["base"], "datasets")
    if base in (*seen, path):
        raise ConfigError(f"{path}: circular chain of base files")
    inherited = _read(base, (*seen, path))
    inherited.pop("versions", None)  # another version's table would replace this file's own
    return {**inherited, **raw}
