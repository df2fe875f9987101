"""Where the files of one split of a data set lie, once its folder has been looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from advent.dataset.listing import existing
from advent.dataset.spec import DatasetSpec, Layout
from advent.errors import DataError, hint


@dataclass(frozen=True)
class Place:
    """The layout and split folder that a data set's root turned out to have."""

    root: Path
    layout: Layout
    split_folder: str

    @property
    def images(self) -> Path:
        return self.root / self.layout.image_folder(self.split_folder)

    def key(self, name: str) -> str:
        """An image's name -> the {name} that its label, depth and camera share."""
        before, after = self.layout.image_ending
        folder, _, file = name[: len(name) - len(after)].rpartition("/")
        file = file[len(before) :]
        return f"{folder}/{file}" if folder else file

    def path(self, role: str, name: str) -> Path | None:
        """The file of one role that belongs to an image; None if the layout has no such role."""
        path = self.layout.path(role, self.split_folder, self.key(name))
        return existing(self.root / path) if path else None


def resolve_root(data_root: str | Path, directory: str | Path | None, spec: DatasetSpec) -> Path:
    """The folder of a data set: `directory`, relative ones under `data_root`; None is the spec's own folder.

    Raises DataError that says where it looked and which keys move it.
    """
    root = Path(data_root).expanduser() / (Path(directory).expanduser() if directory else spec.folder)
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder for {spec.name}; say where the data lie with --data-root FOLDER, "
            f"or with DATA_DIRECTORY_SOURCE / DATA_DIRECTORY_TARGET for this data set alone"
        )
    return root


def find_place(spec: DatasetSpec, root: Path, split: str, roles: Sequence[str] = ()) -> Place:
    """The first layout and split folder whose images exist; of several, one that also has the folders of `roles`.

    Raises DataError naming every folder that was looked for.
    """
    if split not in spec.splits:
        raise DataError(f"data set {spec.name} has no split {split!r}; {hint(split, list(spec.splits))}")
    places = [Place(Path(root), layout, folder) for layout in spec.layouts for folder in spec.splits[split]]
    found = [place for place in places if place.images.is_dir()]
    if not found:
        looked = " or ".join(dict.fromkeys(str(place.images) for place in places))
        raise DataError(f"{spec.name}, split {split}: no folder {looked}; unpack the images there or move --data-root")
    return next((place for place in found if all(_has_folder(place, role) for role in roles)), found[0])


def _has_folder(place: Place, role: str) -> bool:
    pattern = getattr(place.layout, role)
    if pattern is None:
        return False
    return (place.root / Layout(images=pattern).image_folder(place.split_folder)).is_dir()
