"""File layout of a data set: path patterns per role, which match the files of one image to each other."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from advent.config.schema import key
from advent.utils.validation import YamlModel

Role = Literal["images", "labels", "depth", "camera"]
ROLES: tuple[Role, ...] = get_args(Role)
FIELDS = ("split", "folder", "name")


class Layout(YamlModel):
    """Path patterns of the roles, relative to the data set's root, with the same fields in each.

    {split}: the split's folder, before or after the other fields. {name}: the part that the files of one image share;
    it may contain subfolders. {folder}: one or more parent folders, for layouts such as `clip/images/x.jpg` and
    `clip/labels/x.png`.
    """

    images: str = key(..., "pattern of the images, with `{name}` in it once, such as `{split}/rgb/{name}.png`")
    labels: str | None = key(None, "pattern of the label images")
    depth: str | None = key(None, "pattern of the depth files")
    camera: str | None = key(None, "pattern of the camera files, which `kind: disparity` needs")

    def for_split(self, split_folder: str) -> Layout:
        """The layout of one split. {split} is filled in if image names contain it: `{folder}/{split}/{name}.png`."""
        if "{split}" not in self.images[len(_fixed(self.images)) :]:
            return self
        patterns = {role: getattr(self, role) for role in ROLES}
        return Layout(
            **{role: pattern and pattern.replace("{split}", split_folder) for role, pattern in patterns.items()}
        )

    def base(self, role: str, split_folder: str) -> Path | None:
        """Folder of one role: the pattern up to the path component with {folder} or {name}; None without a pattern."""
        pattern = getattr(self, role)
        return None if pattern is None else Path(_fixed(pattern).format(split=split_folder))

    @cached_property
    def names(self) -> NamePattern:
        """Pattern of the image names, relative to the image folder; of the layout that `for_split` returns."""
        return NamePattern(self.images[len(_fixed(self.images)) :].lstrip("/"))

    def path(self, role: str, split_folder: str, name: str) -> Path | None:
        """File of one role for the image `name`, relative to the root; None without a pattern."""
        pattern = getattr(self, role)
        if not pattern:
            return None
        fields = self.names.fields(name)
        assert fields is not None, f"{name} is no name of this layout"
        return Path(pattern.format(split=split_folder, **fields))


def _fixed(pattern: str) -> str:
    """The folders of a pattern before the path component with {folder} or {name}."""
    return os.path.dirname(re.split(r"\{folder\}|\{name\}", pattern)[0])


class NamePattern:
    """Pattern of image names, such as `{folder}/rgb/{name}.png`: matches names and extracts their fields.

    Suffixes match in any case, since some archives contain .PNG or .JPG. Hidden files never match.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        start, self.suffix = os.path.splitext(pattern) if pattern.rindex("}") < pattern.rfind(".") else (pattern, "")
        parts = [re.escape(part) for part in re.split(r"\{(?:folder|name)\}", start)]
        kinds = re.findall(r"\{(folder|name)\}", start)
        expression = parts[0] + "".join(f"(?P<{kind}>.+){part}" for kind, part in zip(kinds, parts[1:], strict=True))
        self._expression = re.compile(f"{expression}(?i:{re.escape(self.suffix)})", re.DOTALL)

    def fields(self, name: str) -> dict[str, str] | None:
        """Fields of a name (posix, relative to the image folder), or None if it does not match."""
        if name.rpartition("/")[2].startswith("."):
            return None
        if "/" in self.pattern:
            match = self._expression.fullmatch(name)
            return match.groupdict() if match else None
        folder, slash, file = name.rpartition("/")  # only {name} contains subfolders
        match = self._expression.fullmatch(file)
        return {"name": folder + slash + match["name"]} if match else None

    def __str__(self) -> str:
        return re.sub(r"\{(?:folder|name)\}", "*", self.pattern)
