"""The old name of daf.dataset.depth_units."""

from __future__ import annotations

import warnings

from daf.dataset.depth_units import *  # noqa: F403

warnings.warn("daf.dataset.depth_guess is now daf.dataset.depth_units", DeprecationWarning, stacklevel=2)
