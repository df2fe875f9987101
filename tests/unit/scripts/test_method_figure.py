"""Figure of the method: both committed SVG files equal the script's output and are well-formed."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

import method_figure

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", method_figure.THEMES)
def test_committed_figure_is_up_to_date(name: str) -> None:
    committed = (DOCS / f"method-{name}.svg").read_text(encoding="utf-8")
    assert committed == method_figure.draw(method_figure.THEMES[name])
    assert ElementTree.fromstring(committed).tag.endswith("svg")
