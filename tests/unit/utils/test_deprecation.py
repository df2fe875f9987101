"""Renamed public names: the old one is the new object, with a warning."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("advent.methods.steps", "Prediction", "NetworkOutputs"),
        ("daf.inference", "upright", "load_rgb"),
        ("daf.model.deeplabv2_depth", "resize", "resize_bilinear"),
        ("ida.ranking", "rank", "sort_by_score"),
        ("ida.ranking", "score", "ranking_scores"),
    ],
)
def test_an_old_name_works_with_a_warning(module: str, old: str, new: str) -> None:
    owner = import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{module}.{old} is now {module}.{new}"):
        assert getattr(owner, old) is getattr(owner, new)
