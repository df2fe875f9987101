"""Rendered data sets: a spec with `render` is made by the checkout's scripts/make_streets.py when it is first used."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from advent.dataset.file_lists import walk
from advent.dataset.spec import DatasetSpec, RenderSetup
from advent.errors import DataError, first_line
from advent.runtime import distributed
from advent.utils.paths import CHECKOUT, PROJECT

log = logging.getLogger(__name__)
RENDERER = PROJECT / "scripts" / "make_streets.py"
MANIFEST = "streets.json"  # written by the renderer: the scenes' settings, not a part of them
SHOWN = 12  # characters of a digest in messages
FEW = 8  # scenes that one process renders sooner than several start
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # the renderer is one process, and refuses to be one of several


def ensure_rendered(spec: DatasetSpec, root: Path) -> None:
    """Render the missing scenes of a spec with `render`; log their number and digest. Without `render` do nothing.

    Rank 0 renders for all processes. Scenes of an interrupted rendering are completed. Another digest than the
    documented one is a log line, not an error: it depends on the versions of OpenCV and NumPy. Raises DataError if the
    renderer is missing (an installed wheel) or fails.
    """
    setup = spec.render
    if setup is not None:
        distributed.broadcast_object(lambda: _ensure(spec, setup, root))


def rendered_digest(root: Path) -> str:
    """SHA-256 over names and bytes of the rendered files, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(walk(root)):
        if name != MANIFEST:
            total.update(f"{name}\0{hashlib.sha256((root / name).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _ensure(spec: DatasetSpec, setup: RenderSetup, root: Path) -> None:
    if sum(1 for _ in _images(spec, setup, root)) < setup.count:
        _render(spec, setup, root)
    digest = rendered_digest(root)
    log.info("%s: %d rendered scenes in %s, SHA-256 %s%s", spec.name, setup.count, root, *_compared(digest, setup))


def _compared(digest: str, setup: RenderSetup) -> tuple[str, str]:
    """The digest as it is shown, and how it compares with the documented one."""
    if setup.sha256 is None:
        return digest, ""
    if digest == setup.sha256:
        return digest[:SHOWN], " (as documented)"
    return digest[:SHOWN], (
        f" instead of the documented {setup.sha256[:SHOWN]}: other versions of OpenCV or NumPy than constraints.txt "
        "render other pixels, or files were changed; scores may differ by 0.5 mIoU"
    )


def _images(spec: DatasetSpec, setup: RenderSetup, root: Path) -> Iterator[str]:
    """Names of the split's images. The renderer writes an image after its label and depth."""
    for folder in spec.splits[setup.split]:
        for layout in (layout.for_split(folder) for layout in spec.layouts):
            images = layout.base("images", folder)
            if images is not None and (root / images).is_dir():
                yield from (name for name in walk(root / images) if layout.names.fields(name))
                return


def _render(spec: DatasetSpec, setup: RenderSetup, root: Path) -> None:
    if not CHECKOUT or not RENDERER.is_file():
        raise DataError(
            f"{root}: no such folder, and {spec.name} is rendered by a tool of the checkout: clone the repository and "
            "run there, or copy its rendered folder here"
        )
    width, height = setup.size
    log.info("%s: rendering %d scenes of %dx%d to %s (once)", spec.name, setup.count, width, height, root)
    counts = {"train": ("--count", "0"), "val": ("--val-count", "0")} | {
        setup.split: ("--count" if setup.split == "train" else "--val-count", str(setup.count))
    }
    options = ["--size", f"{width}x{height}", "--seed", str(setup.seed), "--style", setup.style]
    options += ["--workers", "1"] if setup.count < FEW else []
    command = [sys.executable, str(RENDERER), "--out", str(root), *counts["train"], *counts["val"], *options]
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
    progress = None if sys.stderr.isatty() else subprocess.PIPE  # a terminal shows the renderer's progress bar
    done = subprocess.run(command, env=environment, stderr=progress, stdout=subprocess.DEVNULL, text=True)
    if done.returncode:
        said = [line for line in (done.stderr or "").splitlines() if "error:" in line]
        reason = first_line(said[-1].partition("error:")[2]) if said else f"exit code {done.returncode}"
        raise DataError(f"{root}: {spec.name} could not be rendered: {reason}")
