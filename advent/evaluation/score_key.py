"""Cache key of a score: digests of config, device, data set files, code and libraries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import cv2
import PIL
import torch

from advent.checkpoints.provenance import environment
from advent.config.loading import config_digest
from advent.config.schema import Config
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.cache import stamp
from advent.runtime.device import device_facts

# Config keys for locations and for work other than scoring. All other keys, new ones too, are part of the digest: a key
# missing from this list costs one more scoring and never returns a stale score. The device, the data set's root
# and the checkpoints' contents are added separately.
WITHOUT_EFFECT_ON_SCORES = (
    "DEVICE",
    "NUM_WORKERS",
    "DATA_ROOT",
    "DATA_CACHE",
    "DATA_CHECK",
    "EXP_ROOT",
    "EXP_NAME",
    "EXP_SUFFIX",
    "STAGE.",
    "TRAIN.KEEP",
    "TRAIN.TENSORBOARD",
    "TRAIN.PICTURES_EVERY",
    "TEST.MODE",
    "TEST.RESTORE_FROM",
    "TEST.ENSEMBLE",
    "TEST.SAVE_PREDS",
    "TEST.WAIT_MODEL",
)


def setting_digest(
    config: Config,
    device: torch.device,
    datasets: Sequence[StreetDataset],
    without_effect: Sequence[str] = WITHOUT_EFFECT_ON_SCORES,
) -> str:
    """SHA-256 of everything except the checkpoint that a score depends on; `datasets`: all data sets that are read.

    `without_effect`: config keys (or sections, `TEST.`) that are left out.
    """
    facts = {
        "config": config_digest(config, without_effect),
        "device": device_facts(device),
        "precision": config.TRAIN.precision.format,
        "data": [data_digest(dataset) for dataset in datasets],
        **code_and_libraries(),
    }
    return _sha256(facts)


def data_digest(dataset: StreetDataset) -> str:
    """SHA-256 of what a data set's items depend on: spec, classes, sizes, and size and time of each file."""
    files = hashlib.sha256()
    for index, name in enumerate(dataset.names):
        files.update(name.encode() + b"\0" + stamp(dataset.files(index)).tobytes())
    resolved = dataset.resolved
    facts = {
        "spec": dataset.spec.model_dump(),
        "classes": dataset.classes.as_mapping(),
        "root": str(resolved.root.resolve()),
        "layout": resolved.layout.model_dump(),
        "split": [dataset.split, resolved.split_folder],
        "size": dataset.size,
        "label_size": dataset.label_size,
        "mean": dataset.mean,
        "labelled": dataset.label_files is not None,
        "files": files.hexdigest(),
    }
    return _sha256(facts)


def code_and_libraries() -> dict[str, Any]:
    """Digest of this project's sources, and versions of the libraries that decode images and compute."""
    facts = {key: value for key, value in environment().items() if key != "time"}
    facts["code"] = facts["code"]["sha256"]  # a commit may change without the sources
    libraries = {"Pillow": PIL.__version__, "opencv": cv2.__version__, "timm": version("timm")}
    return {**facts, "libraries": libraries}


def _sha256(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
