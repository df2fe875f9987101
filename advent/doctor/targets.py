"""Splits to check: those of a config, or of one data set."""

from __future__ import annotations

from pathlib import Path

from advent.config.class_set import class_set
from advent.config.schema import Config
from advent.dataset.classes import ClassSet, load_classes
from advent.dataset.file_lists import walk
from advent.dataset.resolved_layout import ResolvedLayout, folder_of, resolve_layout
from advent.dataset.spec import DatasetSpec, load_spec
from advent.doctor.check import CheckTarget
from advent.errors import UserError
from advent.methods.registry import find_method, find_network

NOT_OPENED = "labels are not checked: training and ranking never open target labels"
NEVER_NEEDED = "no labels: fine for training and ranking, which never open target labels; only test.py needs them"


def targets_of_config(config: Config) -> list[CheckTarget]:
    """Check targets of a config: the source, the target, and the target's labelled set for scoring."""
    classes, train = class_set(config), config.TRAIN
    source, target = load_spec(config.SOURCE), load_spec(config.TARGET)
    depth = ["depth"] if find_network(config).gives_depth and train.LAMBDA_DEPTH_MAIN > 0 else []
    root_src = folder_of(config.DATA_ROOT, config.DATA_DIRECTORY_SOURCE, source)
    subjects = [
        CheckTarget(
            f"source {source.name}, {train.SET_SOURCE}",
            source,
            root_src,
            train.SET_SOURCE,
            classes,
            needed=["labels", *depth],
            wanted=["labels", *depth, *(["camera"] if depth and _camera(source) else [])],
            list_file=_path(config.DATA_LIST_SOURCE),
        )
    ]
    if not find_method(config).uses_target:
        return subjects
    root_trg = folder_of(config.DATA_ROOT, config.DATA_DIRECTORY_TARGET, target)
    list_trg = _path(config.DATA_LIST_TARGET)
    name = f"target {target.name}"
    subjects.append(
        CheckTarget(
            f"{name}, {train.SET_TARGET}", target, root_trg, train.SET_TARGET, list_file=list_trg, note=NOT_OPENED
        )
    )
    scored = config.TEST.SET_TARGET
    if scored in target.splits and (scored != train.SET_TARGET or any(layout.labels for layout in target.layouts)):
        subjects.append(
            CheckTarget(
                f"{name}, {scored} (to score)",
                target,
                root_trg,
                scored,
                classes if target.ids else None,
                wanted=["labels"],
                without_labels=NEVER_NEEDED,
            )
        )
    return subjects


def targets_of_dataset(spec: DatasetSpec, root: Path, class_set_name: str | None) -> list[CheckTarget]:
    """Check targets of a data set: each split with an image folder, all roles of its layout; else the first split."""
    classes = _classes(spec, class_set_name)
    subjects, seen = [], set()
    for split in spec.splits:
        roles = [
            role for role in ("labels", "depth", "camera") if any(getattr(layout, role) for layout in spec.layouts)
        ]
        try:
            resolved = resolve_layout(spec, root, split, roles)
        except UserError:
            continue
        if resolved.layout not in spec.layouts and not _has_image(resolved):
            continue  # the splits lie below the other folders, so that every split has the image folder
        if (resolved.layout, resolved.split_folder) not in seen:
            seen.add((resolved.layout, resolved.split_folder))
            roles = [role for role in roles if getattr(resolved.layout, role)]
            subjects.append(CheckTarget(f"{spec.name}, {split}", spec, root, split, classes, wanted=roles))
    first = next(iter(spec.splits))
    return subjects or [CheckTarget(f"{spec.name}, {first}", spec, root, first, classes, wanted=["labels"])]


def _has_image(resolved: ResolvedLayout) -> bool:
    return any(resolved.layout.names.fields(file) for file in walk(resolved.images))


def _classes(spec: DatasetSpec, name: str | None) -> ClassSet | None:
    if name is not None:
        return load_classes(name)
    if spec.classes is not None:
        return spec.classes
    return load_classes(next(iter(spec.ids))) if spec.ids else None


def _camera(spec: DatasetSpec) -> bool:
    return any(layout.camera for layout in spec.layouts)


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None
