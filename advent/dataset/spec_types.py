"""What differs between data sets, as data: the fields of a spec, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from advent.dataset.classes import IGNORE, ClassSet, Color
from advent.dataset.layout import Layout
from advent.errors import ConfigError, hint

UNITS_CM = {"mm": 0.1, "cm": 1.0, "m": 100.0, "km": 100_000.0}


@dataclass(frozen=True)
class DepthFormat:
    """What a depth file's values mean. `kind`: the name of a registered reader.

    For the kinds `distance` and `inverse`: value x `scale` is a distance in `unit`, or one over it. Values in `unknown`
    (numbers, NaN) stand for pixels without depth.
    """

    kind: str
    unit: str = "cm"
    scale: float = 1.0
    unknown: tuple[float, ...] = ()

    @property
    def has_gaps(self) -> bool:
        """Whether pixels may lack a depth."""
        return self.kind == "disparity" or bool(self.unknown)


@dataclass(frozen=True)
class KnownMistake:
    """A wrong turn that people take with a data set, and what to tell them.

    `path`: a glob under the root that gives it away; `ids`: it is one if every label id seen is among these, and those
    of `require_ids` are seen. With `when_missing` (a role) it counts only where such files are missing; with `unless` (a
    glob) only where nothing fits that.
    """

    message: str
    path: str | None = None
    ids: tuple[int, ...] = ()
    require_ids: tuple[int, ...] = ()
    when_missing: str | None = None
    unless: str | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """One data set. Sizes are (width, height); `ids` is class set -> class name -> label ids.

    `unequal`: images whose label has another size in the published set. `credit`: whose pictures these are, and their
    licence; it stands beside them wherever they are shown.
    """

    name: str
    folder: str
    layouts: tuple[Layout, ...]
    splits: Mapping[str, tuple[str, ...]]
    ids: Mapping[str, Mapping[str, tuple[int, ...]]]
    max_label_id: int
    classes: ClassSet | None = None
    palette: Mapping[int, Color] | None = None
    label_names: tuple[str, ...] = ()
    label_hint: str | None = None
    geometry: str = "stretch"
    fill_label: int | None = None
    depth: DepthFormat | None = None
    score_size: tuple[int, int] | None = None
    unequal: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    mistakes: tuple[KnownMistake, ...] = ()
    versions: tuple[str, ...] = ()
    catalogue: tuple[str, ...] = ()
    credit: str | None = None

    @property
    def wrong_id(self) -> str:
        """The end of an error that starts with a file and a label id above max_label_id."""
        hint = self.label_hint or "these are not its labels, or max_label_id in its spec is wrong"
        return f"is not in {self.name} (0..{self.max_label_id}, or 255); {hint}"

    def label_name(self, label_id: int) -> str:
        """What a label id is called, as far as the spec says."""
        return self.label_names[label_id] if label_id < len(self.label_names) else str(label_id)

    def table(self, classes: ClassSet) -> np.ndarray:
        """Lookup table label id -> train id, uint8; every id without a class is 255."""
        if classes.name not in self.ids:
            have = f"it has: {', '.join(self.ids)}" if self.ids else "it has none: its images are unlabelled"
            raise ConfigError(
                f"data set {self.name} has no table for the class set {classes.name} ({have}); say which of its label "
                f"ids mean which class under ids: {{{classes.name}: ...}} in its spec"
            )
        table = np.full(max(IGNORE, self.max_label_id) + 1, IGNORE, np.uint8)
        for class_name, label_ids in self.ids[classes.name].items():
            if class_name not in classes.names:
                raise ConfigError(
                    f"data set {self.name}: {class_name!r} is no class of {classes.name}; "
                    f"{hint(class_name, classes.names)}"
                )
            table[list(label_ids)] = classes.names.index(class_name)
        return table

    def fill(self, table: np.ndarray) -> int:
        """The train id that labels are padded with."""
        return IGNORE if self.fill_label is None else int(table[self.fill_label])
