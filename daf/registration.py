"""Registration of the depth methods, networks and file formats for configs and specs."""

from __future__ import annotations

from daf.dataset.depth import register_depth_formats
from daf.methods import register_methods


def register() -> None:
    """Register DAF's and DADA's networks and methods, and the readers of depth files. Repeated calls are harmless."""
    register_methods()
    register_depth_formats()
