"""Resolved layout: the actual folders of one split of a data set on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from advent.dataset.file_lists import with_existing_suffix
from advent.dataset.layout import Layout
from advent.dataset.rendered import ensure_rendered
from advent.dataset.spec import DatasetSpec
from advent.errors import DataError, hint


@dataclass(frozen=True)
class ResolvedLayout:
    """Layout and split folder that exist under a data set's root."""

    root: Path
    layout: Layout
    split_folder: str

    @property
    def images(self) -> Path:
        """Folder that image names are relative to."""
        return self.folder("images") or self.root

    def folder(self, role: str) -> Path | None:
        """Folder of one role; None if the layout has no such role."""
        base = self.layout.base(role, self.split_folder)
        return self.root / base if base is not None else None

    def key(self, name: str) -> str:
        """Image name without the pattern's fixed text and suffix: the base name for output files."""
        fields = self.layout.names.fields(name)
        assert fields is not None, f"{name} is no name of this layout"
        return "/".join(fields[field] for field in ("folder", "name") if field in fields)

    def path(self, role: str, name: str) -> Path | None:
        """File of one role for an image; None if the layout has no such role."""
        path = self.layout.path(role, self.split_folder, name)
        return with_existing_suffix(self.root / path) if path else None


def folder_of(data_root: str | Path, directory: str | Path | None, spec: DatasetSpec) -> Path:
    """Folder of a data set: `directory` (if relative, under `data_root`), or the spec's folder if None."""
    return Path(data_root) / Path(directory or spec.folder)


def resolve_root(data_root: str | Path, directory: str | Path | None, spec: DatasetSpec) -> Path:
    """`folder_of` a data set, checked to exist; a data set with `render` is rendered if scenes are missing.

    Raises DataError with the path and the config keys that set it.
    """
    root = folder_of(data_root, directory, spec)
    ensure_rendered(spec, root)
    return existing_root(root, spec)


def existing_root(root: Path, spec: DatasetSpec) -> Path:
    """Return `root` if it is a folder, else raise DataError."""
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder for {spec.name}; set the data folder with --data-root FOLDER, "
            f"or with DATA_DIRECTORY_SOURCE / DATA_DIRECTORY_TARGET for this data set alone"
        )
    return root


def resolve_layout(spec: DatasetSpec, root: Path, split: str, roles: Sequence[str] = ()) -> ResolvedLayout:
    """First layout and split folder with an image folder; preferably one that also has the folders of `roles`.

    Raises DataError with every folder that was tried.
    """
    if split not in spec.splits:
        raise DataError(f"data set {spec.name} has no split {split!r}; {hint(split, list(spec.splits))}")
    candidates = [
        ResolvedLayout(Path(root), layout.for_split(folder), folder)
        for layout in spec.layouts
        for folder in spec.splits[split]
    ]
    existing = [resolved for resolved in candidates if resolved.images.is_dir()]
    if not existing:
        tried = " or ".join(dict.fromkeys(str(resolved.images) for resolved in candidates))
        raise DataError(f"{spec.name}, split {split}: no folder {tried}; unpack the images there or move --data-root")
    return next((resolved for resolved in existing if all(_has_folder(resolved, role) for role in roles)), existing[0])


def _has_folder(resolved: ResolvedLayout, role: str) -> bool:
    folder = resolved.folder(role)
    return folder is not None and folder.is_dir()
