"""Execute docs/tutorial.ipynb from its first cell to its last.

    python scripts/tutorial.py                              about five minutes on two cores
    python scripts/tutorial.py --short                      fewer scenes and iterations: checks that every cell runs
    python scripts/tutorial.py --out docs/tutorial.ipynb    store the outputs, as in the repository

Scenes are written to `data/tutorial`, checkpoints to `experiments/tutorial` (`--short`: `tutorial_short`).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages need not be installed

from advent.cli import OneLineParser, run_cli
from advent.errors import ConfigError
from advent.utils.program import extra_command
from advent.utils.serialization import write_text

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs/tutorial.ipynb"
LARGEST = 1_500_000  # bytes of the notebook with its outputs
SECONDS_PER_CELL = 1800


def execute(notebook: Path, short: bool) -> Any:
    """Run all cells in a new kernel of this Python; returns the notebook with its outputs.

    Raises ConfigError naming the cell that failed, or the extra that is missing.
    """
    try:
        import nbformat  # an optional extra
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError
    except ImportError as error:
        raise ConfigError(f"{notebook.name}: needs {error.name}; {extra_command('tutorial')}") from None
    content = nbformat.read(notebook, as_version=4)
    environment = {**os.environ, "TUTORIAL_SHORT": str(int(short)), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    client = NotebookClient(content, timeout=SECONDS_PER_CELL, kernel_name="python3")
    count = len([cell for cell in content.cells if cell.cell_type == "code"])

    def started(cell: Any, cell_index: int) -> None:
        if cell.cell_type == "code":
            number = len([c for c in content.cells[: cell_index + 1] if c.cell_type == "code"])
            log.info("%s: cell %d of %d", notebook.name, number, count)

    client.on_cell_start = started
    try:
        client.execute(cwd=str(notebook.resolve().parent), env=environment)
    except (CellExecutionError, CellTimeoutError) as error:
        last = [line for line in str(error).splitlines() if line.strip()][-1]
        raise ConfigError(f"{notebook}: a cell failed: {last}; run it in Jupyter for the traceback") from None
    return content


def clean(content: Any) -> None:
    """Remove what differs from run to run without a meaning: times, versions, ids of the kernel's messages."""
    content.metadata = {"kernelspec": content.metadata["kernelspec"], "language_info": {"name": "python"}}
    for cell in content.cells:
        cell.metadata = {}
        cell.get("outputs", [])[:] = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("text/plain", None)


def stored(content: Any) -> str:
    """The text of the notebook's file. Raises ConfigError if it names this checkout's folder or is too large."""
    import nbformat  # an optional extra, imported by `execute` before

    text = str(nbformat.writes(content)) + "\n"
    if str(ROOT) in text or str(Path.home()) in text:
        raise ConfigError(f"an output names {ROOT} or {Path.home()}; print relative paths")
    if len(text) > LARGEST:
        raise ConfigError(f"the notebook has {len(text):,} bytes, more than {LARGEST:,}; show smaller pictures")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit code."""
    parser = OneLineParser(
        prog="tutorial.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="fewer scenes and iterations")
    parser.add_argument("--notebook", metavar="FILE", default=str(NOTEBOOK), help="the notebook to execute")
    parser.add_argument("--out", metavar="FILE", help="write the notebook with its outputs")
    options = parser.parse_args(argv)

    def body() -> None:
        content = execute(Path(options.notebook), options.short)
        clean(content)
        text = stored(content)
        if options.out:
            write_text(Path(options.out), text)
        pictures = sum("image/" in str(output.get("data")) for c in content.cells for output in c.get("outputs", []))
        print(f"{Path(options.notebook).name}: all cells ran, {pictures} pictures")

    return run_cli("scripts/tutorial.py", body, argv)


if __name__ == "__main__":
    sys.exit(main())
