"""Buffer of the metrics since the last log: kept on the device, and copied to the host in one transfer per log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

SHOWN_FILES = 8


@dataclass
class MetricBuffer:
    """Metrics of consecutive iterations, one row per iteration; all rows have the same names."""

    names: list[str] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    iterations: list[int] = field(default_factory=list)
    files: list[list[str]] = field(default_factory=list)

    def add(self, iteration: int, values: Mapping[str, Tensor], files: Sequence[str]) -> None:
        """Store one iteration's values and file names; nothing is copied to the host."""
        self.names = list(values)
        self.rows.append(torch.stack([value.float() for value in values.values()]))
        self.iterations.append(iteration)
        self.files.append(list(files))

    def fetch(self) -> MetricSummary:
        """Copy all rows to the host and summarise them: the only place where training waits for the device."""
        rows = torch.stack(self.rows).cpu().double()  # an Apple GPU has no float64
        finite = torch.isfinite(rows).all(1)
        means = rows[finite].mean(0).tolist() if finite.any() else []
        bad = [
            NonFinite(self.iterations[i], dict(zip(self.names, rows[i].tolist(), strict=True)), self.files[i])
            for i in torch.nonzero(~finite).flatten().tolist()
        ]
        return MetricSummary(dict(zip(self.names, means, strict=bool(means))), bad)

    def state_dict(self) -> dict[str, Any]:
        """State for an exact resume."""
        return {"names": self.names, "rows": self.rows, "iterations": self.iterations, "files": self.files}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], device: torch.device) -> MetricBuffer:
        """Restore a buffer from its `state_dict()`, with rows on `device`."""
        return cls(state["names"], [r.to(device) for r in state["rows"]], state["iterations"], state["files"])


@dataclass(frozen=True)
class NonFinite:
    """A skipped iteration: its number, its values, and the files of its batches."""

    iteration: int
    values: dict[str, float]
    files: list[str]

    def __str__(self) -> str:
        bad = ", ".join(f"{name} {value}" for name, value in self.values.items() if not abs(value) < float("inf"))
        rest = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items() if abs(value) < float("inf"))
        suffix = f" and {len(self.files) - SHOWN_FILES} more" if len(self.files) > SHOWN_FILES else ""
        files = ", ".join(self.files[:SHOWN_FILES]) + suffix
        return f"iteration {self.iteration}: not finite: {bad}; finite: {rest or 'nothing'}; images: {files}"


@dataclass(frozen=True)
class MetricSummary:
    """Means over the finite iterations of a buffer (empty if there are none), and the skipped iterations."""

    means: dict[str, float]
    skipped: list[NonFinite]
