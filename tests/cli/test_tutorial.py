"""scripts/tutorial.py and the committed notebook; .ci/run executes all cells in their short form."""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import tutorial
from advent.errors import ConfigError
from helpers.documented import ROOT

NOTEBOOK = ROOT / "docs/tutorial.ipynb"


def write(path: Path, *code: str) -> Path:
    cells = [new_markdown_cell("# Title"), *(new_code_cell(text) for text in code)]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_is_stored_with_a_picture_of_every_step() -> None:
    settings, *steps = code_cells()
    assert len(steps) >= 10
    assert settings["execution_count"] == 1
    for number, cell in enumerate(steps, 2):
        assert cell["execution_count"] == number, "executed once, in order"
        kinds = {kind for output in cell["outputs"] for kind in output.get("data", {})}
        assert kinds & {"image/jpeg", "image/png"}, "".join(cell["source"])
    assert NOTEBOOK.stat().st_size < tutorial.LARGEST


def test_no_output_names_a_folder_of_a_machine() -> None:
    for cell in code_cells():
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            words = "".join(output.get("text", []))
            assert not re.search(r"(^|[\s'\"(])/(root|home|work|tmp|Users|usr|opt)/", words), words


def test_cells_run_in_order_and_outputs_are_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = "import os, sys\nprint('to err', file=sys.stderr)\nshort = os.environ['TUTORIAL_SHORT']"
    notebook, out = write(tmp_path / "a.ipynb", first, "print('short:', short)"), tmp_path / "b.ipynb"
    assert tutorial.main(["--short", "--notebook", str(notebook), "--out", str(out)]) == 0
    assert "a.ipynb: all cells ran, 0 pictures" in capsys.readouterr().out
    cells = nbformat.read(out, as_version=4).cells
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2]
    assert cells[1].outputs == []  # standard error is not stored
    assert cells[2].outputs[0].text == "short: 1\n"
    assert nbformat.read(notebook, as_version=4).cells[2].outputs == []


def test_a_cell_that_fails_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = write(tmp_path / "a.ipynb", "raise ValueError('no luck')")
    assert tutorial.main(["--notebook", str(notebook), "--out", str(tmp_path / "b.ipynb")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert "a.ipynb: a cell failed: ValueError: no luck" in line
    assert not (tmp_path / "b.ipynb").exists()


def test_a_path_in_an_output_is_refused() -> None:
    cell = new_code_cell("x", outputs=[new_output("stream", text=f"{ROOT}/data\n")])
    with pytest.raises(ConfigError, match="print relative paths"):
        tutorial.stored(new_notebook(cells=[cell]))


def test_without_the_extra_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("nbclient"):
            raise ImportError(name, name=name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert tutorial.main(["--short"]) == 2
    assert "needs nbclient" in (said := capsys.readouterr().err)
    assert "[tutorial]" in said
