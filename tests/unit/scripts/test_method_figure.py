"""The method's figure: both committed variants are what the script draws, and well-formed."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

import method_figure

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", method_figure.THEMES)
def test_committed_figure_is_up_to_date(name: str) -> None:
    committed = (DOCS / f"method-{name}.svg").read_text(encoding="utf-8")
    assert committed == method_figure.draw(method_figure.THEMES[name])
    assert ElementTree.fromstring(committed).tag.endswith("svg")
