"""First floor: depth. Networks, the depth-aware map, the depth loss, and the methods made of them.

`from daf import load_model, predict` is the way to use a trained network on any image (daf/inference.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daf.inference import Model, Prediction, load_model, predict

__all__ = ["Model", "Prediction", "load_model", "predict"]


def __getattr__(name: str) -> Any:
    """Import on first use: what only looks for a foreign `advent` (daf.import_check) must not import one."""
    if name not in __all__:
        raise AttributeError(f"module 'daf' has no attribute {name!r}")
    from daf.import_check import foreign_advent

    if problem := foreign_advent():
        raise ImportError(problem)
    from daf import inference

    return getattr(inference, name)
