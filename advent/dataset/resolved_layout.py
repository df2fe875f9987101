"""Where the files of one split of a data set lie, once its folder has been looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from advent.dataset.file_lists import with_existing_suffix
from advent.dataset.layout import Layout
from advent.dataset.spec_types import DatasetSpec
from advent.errors import DataError, hint


@dataclass(frozen=True)
class ResolvedLayout:
    """The layout and split folder that a data set's root turned out to have."""

    root: Path
    layout: Layout
    split_folder: str

    @property
    def images(self) -> Path:
        """The folder that images' names are relative to."""
        return self.folder("images") or self.root

    def folder(self, role: str) -> Path | None:
        """The folder of one role, or None if the layout has no such role."""
        base = self.layout.base(role, self.split_folder)
        return self.root / base if base is not None else None

    def key(self, name: str) -> str:
        """An image's name without what its pattern adds to it: what to call files that are made of it."""
        fields = self.layout.names.fields(name)
        assert fields is not None, f"{name} is no name of this layout"
        return "/".join(fields[field] for field in ("folder", "name") if field in fields)

    def path(self, role: str, name: str) -> Path | None:
        """The file of one role that belongs to an image; None if the layout has no such role."""
        path = self.layout.path(role, self.split_folder, name)
        return with_existing_suffix(self.root / path) if path else None


def folder_of(data_root: str | Path, directory: str | Path | None, spec: DatasetSpec) -> Path:
    """The folder of a data set: `directory`, relative ones under `data_root`; None is the spec's own folder."""
    return Path(data_root) / Path(directory or spec.folder)


def resolve_root(data_root: str | Path, directory: str | Path | None, spec: DatasetSpec) -> Path:
    """`folder_of` a data set that is there. Raises DataError that says where it looked and which keys move it."""
    return existing_root(folder_of(data_root, directory, spec), spec)


def existing_root(root: Path, spec: DatasetSpec) -> Path:
    """The folder itself. Raises DataError where there is none."""
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder for {spec.name}; say where the data lie with --data-root FOLDER, "
            f"or with DATA_DIRECTORY_SOURCE / DATA_DIRECTORY_TARGET for this data set alone"
        )
    return root


def resolve_layout(spec: DatasetSpec, root: Path, split: str, roles: Sequence[str] = ()) -> ResolvedLayout:
    """The first layout and split folder whose images exist; of several, one that also has the folders of `roles`.

    Raises DataError naming every folder that was looked for.
    """
    if split not in spec.splits:
        raise DataError(f"data set {spec.name} has no split {split!r}; {hint(split, list(spec.splits))}")
    places = [ResolvedLayout(Path(root), layout, folder) for layout in spec.layouts for folder in spec.splits[split]]
    found = [resolved for resolved in places if resolved.images.is_dir()]
    if not found:
        looked = " or ".join(dict.fromkeys(str(resolved.images) for resolved in places))
        raise DataError(f"{spec.name}, split {split}: no folder {looked}; unpack the images there or move --data-root")
    return next((resolved for resolved in found if all(_has_folder(resolved, role) for role in roles)), found[0])


def _has_folder(resolved: ResolvedLayout, role: str) -> bool:
    folder = resolved.folder(role)
    return folder is not None and folder.is_dir()
