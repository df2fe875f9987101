"""Build data sets from a config: source, target and evaluation set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from advent.config.class_set import class_set, target_spec
from advent.config.schema import Config
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.class_counts import class_counts
from advent.dataset.resolved_layout import resolve_root
from advent.dataset.sampling import RareClassSampler
from advent.dataset.spec import load_spec
from advent.errors import DataError
from advent.methods.registry import find_network
from advent.runtime import distributed
from advent.utils.paths import CONFIGS

log = logging.getLogger(__name__)


def source_data(config: Config) -> StreetDataset:
    """The labelled source data set at its input size; with depth if the network learns depth."""
    spec = load_spec(config.SOURCE)
    train = config.TRAIN
    return StreetDataset(
        spec,
        resolve_root(config.DATA_ROOT, config.DATA_DIRECTORY_SOURCE, spec),
        train.SET_SOURCE,
        class_set(config),
        size=train.INPUT_SIZE_SOURCE,
        label_size=train.INPUT_SIZE_SOURCE,
        mean=tuple(train.IMG_MEAN),
        list_file=_list_file(config.DATA_LIST_SOURCE),
        with_labels=True,
        with_depth=find_network(config).gives_depth and train.LAMBDA_DEPTH_MAIN > 0,
        cache_dir=cache_folder(config),
    )


def target_data(
    config: Config,
    names: Sequence[str] | None = None,
    label_dir: Path | None = None,
    size: Sequence[int] | None = None,
) -> StreetDataset:
    """The unlabelled target data set at its input size (or `size`, width and height).

    `names` selects a subset; `label_dir` adds pseudo labels. The ground truth is never opened.
    """
    spec = target_spec(config.TARGET, config.GEOMETRY_TARGET)
    train = config.TRAIN
    size_wh = size or train.INPUT_SIZE_TARGET
    return StreetDataset(
        spec,
        resolve_root(config.DATA_ROOT, config.DATA_DIRECTORY_TARGET, spec),
        train.SET_TARGET,
        class_set(config),
        size=size_wh,
        label_size=size_wh,
        mean=tuple(train.IMG_MEAN),
        names=names,
        list_file=_list_file(config.DATA_LIST_TARGET),
        label_dir=label_dir,
        cache_dir=cache_folder(config),
    )


def evaluation_data(config: Config, labelled: bool = True) -> StreetDataset:
    """The target's evaluation set: images at TEST.INPUT_SIZE_TARGET, labels (if `labelled`) at scoring size."""
    spec = target_spec(config.TARGET, config.GEOMETRY_TARGET)
    return StreetDataset(
        spec,
        resolve_root(config.DATA_ROOT, config.DATA_DIRECTORY_TARGET, spec),
        config.TEST.SET_TARGET,
        class_set(config),
        size=config.TEST.INPUT_SIZE_TARGET,
        label_size=None,
        mean=tuple(config.TRAIN.IMG_MEAN),
        list_file=_list_file(config.TEST.LIST),
        with_labels=labelled,
        cache_dir=cache_folder(config),
    )


def rare_class_sampler(config: Config, dataset: StreetDataset) -> RareClassSampler | None:
    """The sampler of TRAIN.RARE_CLASS_TEMPERATURE; None if that is 0, or for pseudo labels, which have no statistics.

    Rank 0 counts the labels' pixels for all processes. Raises DataError if the labels show no class.
    """
    train = config.TRAIN
    if train.RARE_CLASS_TEMPERATURE == 0 or dataset.label_files is None:
        return None
    counts = distributed.broadcast_object(lambda: class_counts(dataset, cache_folder(config)))
    if not counts.any():
        raise DataError(f"{dataset.spec.name}: its labels show none of the classes of {dataset.classes.name}")
    width, height = train.INPUT_SIZE_SOURCE
    sampler = RareClassSampler(
        counts, width * height, train.RARE_CLASS_TEMPERATURE, train.RARE_CLASS_SHARE, train.RANDOM_SEED
    )
    rates = zip(sampler.classes, sampler.probabilities, strict=True)
    shown = ", ".join(f"{dataset.classes.names[train_id]} {100 * rate:.1f} %" for train_id, rate in rates)
    log.info("rare class sampling of %s: %s", dataset.spec.name, shown)
    return sampler


def cache_folder(config: Config) -> Path | None:
    """Folder of the decoded items that scripts/prepare.py writes: DATA_CACHE, relative to DATA_ROOT."""
    return Path(config.DATA_ROOT) / config.DATA_CACHE if config.DATA_CACHE else None


def _list_file(value: str | None) -> Path | None:
    """Path of a list file; a relative path that does not exist is looked up in this project, which ships some lists."""
    if not value:
        return None
    own = CONFIGS.parent / value
    return own if not Path(value).is_file() and own.is_file() else Path(value)
