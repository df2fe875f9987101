"""Provenance of artefacts: the record stored beside them, and the check by later stages."""

from __future__ import annotations

import hashlib
import logging
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch

import advent
from advent.checkpoints.io import digest
from advent.config.loading import config_digest
from advent.config.schema import Config
from advent.errors import StaleInput
from advent.runtime import distributed
from advent.runtime.device import device_facts, pick_device
from advent.utils.paths import CHECKOUT, PROJECT
from advent.utils.serialization import read_json

log = logging.getLogger(__name__)
FILE = "provenance.json"


def provenance(config: Config, inputs: Mapping[str, Path], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The provenance record of one run: config, seed, code, libraries, device, format, and digests of inputs and names.

    `inputs`: role -> file (the initial checkpoint, splits). `names`: role -> image names of a data set.
    """
    return {
        "schema": 1,
        "stage": config.STAGE.NAME,
        "config": config_digest(config),
        "seed": config.TRAIN.RANDOM_SEED,
        **environment(),
        "device": device_facts(pick_device(config.DEVICE)),
        "precision": config.TRAIN.precision._asdict(),
        "inputs": {role: {"path": str(path), "sha256": digest(path)} for role, path in inputs.items()},
        "data": {role: {"images": len(n), "sha256": names_digest(n)} for role, n in names.items()},
        **({"launcher": distributed.launcher()} if distributed.launcher() else {}),
    }


def environment() -> dict[str, Any]:
    """Code and library versions, and the current time."""
    return {
        "code": {"version": advent.__version__, **_revision()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def names_digest(names: Iterable[str]) -> str:
    """SHA-256 of a list of file names; depends on their order."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def require_match(found: str, wanted: str, what: str, fix: str, check: bool) -> None:
    """Compare two digests; if they differ, raise StaleInput with `what` and `fix`, or only warn if `check` is false."""
    if found == wanted:
        return
    if check:
        raise StaleInput(f"{what}; {fix}, or accept it with STAGE.CHECK_PROVENANCE=false")
    log.warning("%s; accepted, since STAGE.CHECK_PROVENANCE is false", what)


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """The provenance record of a stage's folder, or None if it has none (files copied from elsewhere)."""
    path = folder / FILE
    return read_json(path) if path.is_file() else None


@cache
def _revision() -> dict[str, str]:
    """Digest of this project's sources, and the commit if they are a Git checkout."""
    sources = hashlib.sha256()
    for file in sorted(p for package in ("advent", "daf", "ida") for p in (PROJECT / package).rglob("*.py")):
        sources.update(file.relative_to(PROJECT).as_posix().encode() + b"\0" + file.read_bytes())
    revision = {"sha256": sources.hexdigest()}
    if not CHECKOUT:  # site-packages may be inside another project's repository
        return revision
    try:
        command = ["git", "-C", str(PROJECT), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return revision
    return {**revision, "commit": commit}
