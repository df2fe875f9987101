"""Sphinx: these pages (Markdown, MyST; one notebook) and the API from docstrings. Build: bash scripts/docs.sh"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import advent

project = "Depth Guidance and Intra-Domain Adaptation"
author = "The maintainers"
copyright = "The maintainers, Apache-2.0"
version = release = advent.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "data", "jupyter_execute"]
nb_execution_mode = "off"  # the notebook has its outputs; scripts/tutorial.py executes it
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # [text](page.md#heading) is checked, too
suppress_warnings = ["config.cache"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {
    "members": True,
    "undoc-members": False,
    "show-inheritance": False,
    "exclude-members": "model_config",
}
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = "DAF + IDA"
html_static_path: list[str] = []
html_show_sphinx = False


def literal_docstrings(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code`, not reStructuredText: show code as code, and everything else as it is."""
    blocks: list[str] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if (
            before.strip()
            and line.strip()
            and _indent(before) != _indent(line)
            and not before.lstrip().startswith("- ")
        ):
            blocks.append("")  # where the indentation changes, reStructuredText wants an empty line
        blocks.append(_as_rst(line))
    lines[:] = blocks


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _as_rst(line: str) -> str:
    parts = re.split(r"(``[^`]*``|`[^`]*`)", line)
    plain = [re.sub(r"([*|\\])|(?<=\w)(_)(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
    code = [f"``{part.strip('`')}``" if part.strip("` ") else part for part in parts[1::2]]
    return "".join(part for pair in zip(plain, [*code, ""], strict=True) for part in pair)


def no_signature_of_models(app: Any, what: str, name: str, obj: Any, *rest: Any) -> tuple[str, str] | None:
    """A pydantic model is made from a mapping: its fields are listed below its name."""
    return ("", "") if what == "class" and hasattr(obj, "model_fields") else None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", literal_docstrings)
    app.connect("autodoc-process-signature", no_signature_of_models)
