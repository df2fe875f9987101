"""Depth guidance: networks with a depth head, the depth-aware map, the depth loss, and inference.

`from daf import load_model, predict` runs a trained network on any image (daf/inference.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daf.import_check import require_own_advent

if TYPE_CHECKING:
    from daf.inference import Model, Prediction, load_model, predict

__all__ = ["Model", "Prediction", "load_model", "predict"]

require_own_advent()  # before anything imports a module from another project's package of that name


def __getattr__(name: str) -> Any:
    """Lazy import of daf.inference: `import daf.loss` does not load it."""
    if name not in __all__:
        raise AttributeError(f"module 'daf' has no attribute {name!r}")
    from daf import inference  # imports daf: circular at module level

    return getattr(inference, name)
