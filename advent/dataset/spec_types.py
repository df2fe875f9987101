"""DatasetSpec and its parts: the fields of a data set spec and values derived from them."""

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
    """Meaning of the values in a depth file. `kind`: name of a registered reader.

    For the kinds `distance` and `inverse`, value x `scale` is a distance in `unit`, or its reciprocal. Values in
    `unknown` (numbers, NaN) mark pixels without depth.
    """

    kind: str
    unit: str = "cm"
    scale: float = 1.0
    unknown: tuple[float, ...] = ()

    @property
    def has_gaps(self) -> bool:
        """Whether some pixels may have no depth."""
        return self.kind == "disparity" or bool(self.unknown)


@dataclass(frozen=True)
class KnownMistake:
    """A common mistake with a data set, and the message that explains it.

    Detected by `path`, a glob under the root that matches, or by `ids`: every label id that occurs is in `ids`, and all
    of `require_ids` occur. `when_missing` (a role): applies only if files of that role are missing. `unless` (a glob):
    applies only if it matches nothing.
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

    `unequal`: images whose published label has another size. `credit`: authors and licence of the images, printed
    wherever images are shown.
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
