"""Networks, data sets and the effective batch size of a config."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advent.checkpoints.loading import load_network
from advent.config.class_set import class_set, target_spec
from advent.config.schema import Config
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.class_counts import class_counts
from advent.dataset.resolved_layout import resolve_root
from advent.dataset.sampling import RareClassSampler
from advent.dataset.spec import load_spec
from advent.errors import ConfigError, DataError
from advent.methods.registry import find_network
from advent.model.deeplabv2 import SegmentationNetwork, initialise
from advent.model.encoder import Encoder, ResNetEncoder
from advent.runtime import distributed
from advent.utils.paths import CONFIGS

log = logging.getLogger(__name__)


def build_encoder(config: Config, weights: bool = True) -> Encoder:
    """The encoder of MODEL.ENCODER; `weights=False` skips MODEL.ENCODER_WEIGHTS, as a checkpoint replaces them.

    Raises ConfigError for an unknown encoder, or an output stride that resnet101 does not have.
    """
    model = config.MODEL
    kind, _, name = model.ENCODER.partition(":")
    if kind == "resnet101":
        if model.OUTPUT_STRIDE != 8:
            raise ConfigError(f"MODEL.OUTPUT_STRIDE: {model.OUTPUT_STRIDE}: resnet101 has output stride 8; set it to 8")
        return ResNetEncoder(model.LAYERS, model.WIDTH, model.BN_AFFINE, model.STRIDE_IN)
    if kind != "timm" or not name:
        raise ConfigError(f"MODEL.ENCODER: {model.ENCODER!r} is neither resnet101 nor timm:NAME")
    from advent.model.timm_encoder import TimmEncoder  # timm takes seconds to import, and most runs do not need it

    file = model.ENCODER_WEIGHTS if weights else None
    return TimmEncoder(name, config.TRAIN.IMG_MEAN, model.BN_AFFINE, file, model.OUTPUT_STRIDE, model.FEATURE_SCALE)


def build_network(config: Config, checkpoint: str | Path | None = None) -> SegmentationNetwork:
    """The network of MODEL.NAME, randomly initialised or with the weights of a trained checkpoint."""
    net = find_network(config).build(config, build_encoder(config, weights=checkpoint is None))
    if checkpoint is not None:
        load_network(net, checkpoint)
    else:
        initialise(net, config.MODEL.INIT, backbone=config.MODEL.ENCODER == "resnet101")
    return net


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
    with_pseudo_depth: bool = False,
) -> StreetDataset:
    """The unlabelled target data set at its input size (or `size`, width and height).

    `names` selects a subset; `label_dir` adds pseudo labels, `with_pseudo_depth` the depth beside them. The true labels
    are never opened, depth files only for DEPTH.TARGET: file.
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
        with_depth=train.DA_METHOD == "SelfTraining" and config.DEPTH.TARGET == "file",
        label_dir=label_dir,
        with_pseudo_depth=with_pseudo_depth,
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


def effective_batch(config: Config, uses_target: bool = True) -> dict[str, Any]:
    """Log and return processes, accumulation steps, images per iteration and learning rates (never scaled).

    `target_images` is 0 when the method does not use the target.
    """
    train, processes = config.TRAIN, distributed.world_size()
    parts = processes * train.ACCUMULATE
    source = parts * train.BATCH_SIZE_SOURCE
    target = parts * train.BATCH_SIZE_TARGET if uses_target else 0
    log.info(
        "effective batch: %d source%s images per iteration (%d process%s x TRAIN.ACCUMULATE %d x batch %d); "
        "TRAIN.LEARNING_RATE %g as configured, not scaled",
        source,
        f" + {target} target" if target else "",
        processes,
        "" if processes == 1 else "es",
        train.ACCUMULATE,
        train.BATCH_SIZE_SOURCE,
        train.LEARNING_RATE,
    )
    return {
        "processes": processes,
        "accumulate": train.ACCUMULATE,
        "source_images": source,
        "target_images": target,
        "learning_rate": train.LEARNING_RATE,
        "learning_rate_d": train.LEARNING_RATE_D,
        "sync_bn": train.SYNC_BN,
    }


def with_recorded_accumulation(config: Config, parts: tuple[int, int], path: Path) -> Any:
    """A copy of the config with the TRAIN.ACCUMULATE that the run started with; `parts`: its (processes, ACCUMULATE).

    A run may resume on another number of processes if processes x ACCUMULATE, and so every batch, stays the same.
    Raises ConfigError, naming the resume state at `path`, if the product differs.
    """
    processes, accumulate = distributed.world_size(), config.TRAIN.ACCUMULATE
    if processes * accumulate != parts[0] * parts[1]:
        raise ConfigError(
            f"{path}: the run started with {parts[0]} processes x TRAIN.ACCUMULATE {parts[1]}, now {processes} x "
            f"{accumulate}: a different effective batch; resume with processes x ACCUMULATE = {parts[0] * parts[1]}"
        )
    recorded = config.model_copy(deep=True)
    recorded.TRAIN.ACCUMULATE = parts[1]
    return recorded
