"""StreetDataset: reads images, labels and depth of any data set that has a spec (configs/datasets/)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch
from torch.utils.data import Dataset

from advent.dataset import resize
from advent.dataset.advent_compat import BaseDataset
from advent.dataset.cache import Arrays, Cache
from advent.dataset.classes import ClassSet
from advent.dataset.depth_formats import depth_kind, depth_reader
from advent.dataset.exif import Turn
from advent.dataset.file_lists import checked_names, read_list, scan
from advent.dataset.image_io import (
    IMG_MEAN,
    map_ids,
    network_input,
    read_label,
    read_photo,
    require_same_turn,
    warn_if_damaged,
)
from advent.dataset.pseudo_labels import PseudoLabels, collect_pseudo_labels, pseudo_depth_table
from advent.dataset.resolved_layout import ResolvedLayout, resolve_layout
from advent.dataset.spec import DatasetSpec
from advent.dataset.versions import detect_version
from advent.errors import DataError

__all__ = ["BaseDataset", "StreetDataset", "collect_pseudo_labels"]

log = logging.getLogger(__name__)


class StreetDataset(Dataset[dict[str, Any]]):
    """Network-ready images of one split of one data set, with optional labels, pseudo labels and depth.

    Items are plain dicts of tensors (default_collate stacks them):
    name: path relative to the image folder, posix ("city/x_leftImg8bit.png");
    image: (3, H, W) float32 BGR minus `mean`, 0..255 before that, at `size` = (width, height) or native. EXIF
      orientation is applied; an orientation that differs from that of the label or depth file is an error;
    label (with_labels or label_dir): (H, W) uint8 train ids, 255 = ignored, at `label_size`. None keeps the native
      size: resized to the spec's score_size if it has one, else padded by its geometry;
    depth (with_depth or with_pseudo_depth): (H, W) float32 inverse depth at `label_size`, else `size`; 0 where
      unknown. The pseudo depth is read from `label_dir`, <name without suffix>_depth.png;
    depth_known (with_depth, if the depth may have gaps): (H, W) bool.

    The images are `names`, else the lines of `list_file`, else those of the spec's list for the split, else all in the
    image folder, sorted. The constructor checks everything that needs no file to be opened; it looks for label files
    only if with_labels. `cache_dir`: items are read from the cache there if scripts/prepare.py built a matching one.
    All errors are DataError.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        root: Path,
        split: str,
        classes: ClassSet,
        *,
        size: Sequence[int] | None,
        label_size: Sequence[int] | None = None,
        mean: Sequence[float] = IMG_MEAN,
        names: Sequence[str] | None = None,
        list_file: Path | None = None,
        with_labels: bool = False,
        with_depth: bool = False,
        label_dir: Path | None = None,
        with_pseudo_depth: bool = False,
        cache_dir: Path | None = None,
    ) -> None:
        assert not (with_labels and label_dir), "either the data set's labels or pseudo labels"
        assert not with_pseudo_depth or (label_dir and not with_depth), "pseudo depth lies beside pseudo labels"
        self.split, self.classes, self.mean = split, classes, tuple(mean)
        self.size = (int(size[0]), int(size[1])) if size else None
        self.label_size = (int(label_size[0]), int(label_size[1])) if label_size else None
        roles = ["labels"] * with_labels + ["depth"] * with_depth
        self.spec, self.resolved = _find(spec, Path(root), split, roles)
        self.names = self._list(names, list_file)
        self.table = self.spec.table(classes) if with_labels else None
        self.label_files = self._files("labels") if with_labels else None
        self.pseudo = PseudoLabels.find(Path(label_dir), self.names, with_pseudo_depth) if label_dir else None
        self._read_depth = depth_reader(self.spec.depth, self.spec.name) if with_depth else None
        self._stored_depth = depth_kind(self.spec.depth, self.spec.name).values if with_depth else None
        self.depth_files = self._files("depth") if with_depth else None
        self.depth_table = self._depth_table()
        has_camera = with_depth and self.resolved.layout.camera is not None
        self.camera_files = self._files("camera") if has_camera else None
        self.cache = self._open_cache(cache_dir) if cache_dir else None

    def _list(self, names: Sequence[str] | None, list_file: Path | None) -> list[str]:
        images, pattern = self.resolved.images, self.resolved.layout.names
        if names is not None:
            return checked_names(names, images, pattern, f"names for {self.spec.name}")
        if list_file is None and self.split in self.spec.lists:
            list_file = self.resolved.root / self.spec.lists[self.split]
        if list_file is not None:
            return checked_names(read_list(Path(list_file)), images, pattern, str(list_file))
        return scan(images, pattern)

    def _files(self, role: str) -> list[Path]:
        files = []
        for name in self.names:
            file = self.resolved.path(role, name)
            if file is None:
                raise DataError(
                    f"data set {self.spec.name} has no pattern for {role} in its spec, and {role} are required here "
                    "(labels: for a source data set and for scoring)"
                )
            if not file.is_file():
                raise DataError(
                    f"{file}: missing; expected the {role} of {name} in {self.spec.name} there; "
                    "scripts/doctor.py lists all problems"
                )
            files.append(file)
        return files

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        arrays = self._arrays(index)
        if "depth" in arrays:
            if self.depth_table is not None:
                arrays["depth"] = self.depth_table[arrays["depth"]]
            if self.depth_has_gaps:
                arrays["depth_known"] = arrays["depth"] > 0
        return self._item(index, arrays | {"image": network_input(arrays["image"], self.mean)})

    def get_uint8(self, index: int) -> dict[str, Any]:
        """The item in compact form for the transfer from worker to device: a third of the bytes, with label and depth.

        image: (H, W, 3) uint8 BGR. depth: with a `depth_table`, the bits of the file's uint16 as int16, a dtype that
        every device supports. No depth_known. `network_images` and `network_depth` restore bit-identical values.
        """
        arrays = self._arrays(index)
        if self.depth_table is not None:
            arrays["depth"] = arrays["depth"].view(np.int16)
        return self._item(index, arrays | {"image": cv2.cvtColor(arrays["image"], cv2.COLOR_RGB2BGR)})

    def _item(self, index: int, arrays: Arrays) -> dict[str, Any]:
        return {"name": self.names[index], **{key: torch.from_numpy(_writable(a)) for key, a in arrays.items()}}

    def _arrays(self, index: int) -> Arrays:
        """Result of `decode`, from the cache if it has a valid entry, plus pseudo labels and pseudo depth.

        Those are never cached.
        """
        arrays = self.cache.read(self.names[index], self.files(index)) if self.cache and self.cache.used else None
        if arrays is None:
            arrays = self.decode(index)
        if self.pseudo is not None:
            arrays |= self.pseudo.read(index, self.classes, self.label_size or self.size)
        return arrays

    def decode(self, index: int) -> Arrays:
        """Decoded and resized arrays of one image: image (H, W, 3) uint8 RGB, label, depth.

        depth: with a `depth_table`, uint16 as stored in the file; else float32 inverse depth.
        """
        file = self.resolved.images / self.names[index]
        photo, turn = read_photo(file)
        warn_if_damaged(file, turn)
        arrays = {"image": resize.resize_image(photo, self.size, self.spec.geometry)}
        if self.label_files is not None:
            arrays["label"], label_turn = self._label(self.label_files[index])
            require_same_turn(file, turn, self.label_files[index], label_turn, "label")
        if self.depth_files is not None:
            require_same_turn(file, turn, self.depth_files[index], Turn(), "depth file")
        if self._read_depth is not None and self.depth_files is not None:
            camera = self.camera_files[index] if self.camera_files else None
            file = self.depth_files[index]
            stored = self._stored_depth if self.depth_table is not None else None
            depth = stored(file) if stored is not None else self._read_depth(file, camera)
            arrays["depth"] = resize.resize_depth(depth, self.label_size or self.size, self.spec.geometry)
        return arrays

    def label(self, index: int) -> np.ndarray:
        """Ground truth of one image, (H, W) uint8 train ids."""
        assert self.label_files is not None, "for a data set with_labels"
        return self._label(self.label_files[index])[0]

    def files(self, index: int) -> list[Path]:
        """The files that `decode` reads for one image."""
        optional = (self.label_files, self.depth_files, self.camera_files)
        return [self.resolved.images / self.names[index], *[files[index] for files in optional if files is not None]]

    @property
    def depth_has_gaps(self) -> bool:
        """Whether some pixels may have no depth. Pseudo depth covers the network's input, padding included."""
        if self.pseudo is not None and self.pseudo.depth_files is not None:
            return False
        return self.spec.depth is not None and (self.spec.depth.has_gaps or self.spec.geometry == "pad")

    def _depth_table(self) -> np.ndarray | None:
        """Lookup table of inverse depth, (65536,) float32, if depth can stay in 16 bits until it reaches the device.

        None under `pad`: padding is 0, which means unknown only in inverse depth. None without depth, without a table
        for its kind, or if a file is no PNG. Pseudo depth always has a table.
        """
        if self.pseudo is not None and self.pseudo.depth_files is not None:
            return pseudo_depth_table()
        files = self.depth_files
        if files is None:
            return None
        kind = depth_kind(self.spec.depth, self.spec.name)
        if kind.table is None or self.spec.geometry != "stretch" or any(f.suffix.lower() != ".png" for f in files):
            return None
        assert self.spec.depth is not None
        return kind.table(self.spec.depth)

    def _open_cache(self, base: Path) -> Cache:
        cache = Cache(base, f"{self.spec.name}-{self.split}", self._cache_settings())
        if cache.used:
            cached = cache.holds(self.names)
            log.info("%s: %d of %d images are cached", cache.folder, cached, len(self.names))
        elif why := cache.why_unused():
            log.info("cache ignored: %s; scripts/prepare.py builds a matching one", why)
        return cache

    def _cache_settings(self) -> dict[str, Any]:
        """Cache key: all settings that decoded arrays depend on, apart from the files themselves."""
        spec = self.spec
        return {
            "images": spec.name,
            "split": self.resolved.split_folder,
            "layout": self.resolved.layout.model_dump(),
            "size": self.size,
            "label_size": self.label_size,
            "score_size": spec.score_size,
            "geometry": spec.geometry,
            "table": self.table.tolist() if self.table is not None else None,
            "max_label_id": spec.max_label_id,
            "palette": sorted(spec.palette.items()) if spec.palette else None,
            "fill_label": spec.fill_label,
            "depth": repr(spec.depth) if self.depth_files is not None else None,
            **({"depth_bits": 16} if self.depth_table is not None else {}),  # absent: float32, as in earlier caches
            "versions": {"pillow": PIL.__version__, "opencv": cv2.__version__},
        }

    def _label(self, file: Path) -> tuple[np.ndarray, Turn]:
        """Train ids at the requested size, and the orientation stored in the label file."""
        spec, table = self.spec, self.table
        assert table is not None
        ids, turn = read_label(file, spec.palette)
        label = map_ids(ids, table, spec.max_label_id, file, spec.wrong_id)
        fill = spec.fill(table)
        if self.label_size is not None:
            return resize.resize_label(label, self.label_size, spec.geometry, fill), turn
        if spec.score_size is not None:
            return resize.resize_label(label, spec.score_size), turn
        return resize.pad_label(label, self.size, spec.geometry, fill) if self.size else label, turn


def network_images(bgr: torch.Tensor, mean_bgr: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8 BGR -> (B, 3, H, W) float32 BGR minus the mean (3,), on the tensors' device, channels last.

    Same values as `image_io.network_input`, bit for bit. Both exist because a batch is transferred as uint8 and kept
    channels last, while an item (ADVENT's interface) is contiguous NumPy planes, in RGB before the conversion.
    """
    count, height, width, channels = bgr.shape
    # Row by row: a subtraction over a last axis of three is many times slower on a CPU.
    rows = bgr.to(torch.float32).view(count, height, width * channels).sub_(mean_bgr.repeat(width))
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def network_depth(bits: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """(B, H, W) int16 bits of a file's uint16 -> (B, H, W) float32 inverse depth by `table` (65536,), on its device."""
    return table.index_select(0, (bits.to(torch.int32) & 0xFFFF).view(-1)).view(bits.shape)


def _find(spec: DatasetSpec, root: Path, split: str, roles: Sequence[str]) -> tuple[DatasetSpec, ResolvedLayout]:
    """The spec of the version stored under `root`, and its resolved layout."""
    try:
        settled = detect_version(spec, root, split) if "labels" in roles else spec
        return settled, resolve_layout(settled, root, split, roles)
    except DataError as error:
        raise DataError(f"{error}; run scripts/doctor.py to find the cause") from None


def _writable(array: np.ndarray) -> np.ndarray:
    """A contiguous array that PyTorch may write to: Pillow's are read-only."""
    return np.require(array, requirements=["C", "W"])
