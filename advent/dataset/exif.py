"""Image orientation (EXIF, XMP or TIFF tag), parsed independently of the rest of the metadata."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from PIL import Image

ORIENTATION = 0x0112
_PREFIX = b"Exif\x00\x00"
_BYTE_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # EXIF type number -> struct format
_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Turn:
    """Orientation of an image file. `orientation`: EXIF's 1..8; 1 needs no transposition.

    `damaged`: the metadata cannot be parsed, and the pixels are used as stored.
    """

    orientation: int = 1
    damaged: bool = False

    def apply(self, picture: Image.Image) -> Image.Image:
        """The upright image; the same object if the orientation is 1."""
        method = _METHODS.get(self.orientation)
        return picture if method is None else picture.transpose(method)

    @property
    def swaps_sides(self) -> bool:
        """Whether applying it swaps width and height."""
        return self.orientation >= 5


def turn_of(picture: Image.Image) -> Turn:
    """Orientation of an opened image. Never raises.

    A PNG may store its metadata after the pixels; they are available only once it is loaded.
    """
    try:
        orientation = _orientation(picture)
    except Exception:  # Pillow's parser raises errors of many types; the pixels are still readable
        return Turn(damaged=True)
    return Turn(orientation) if orientation in _METHODS else Turn()


def _orientation(picture: Image.Image) -> int | None:
    info = picture.info
    block = info.get("exif")
    if block is None and "Raw profile type exif" in info:  # older ImageMagick: three header lines, then hexadecimal
        block = bytes.fromhex("".join(info["Raw profile type exif"].split("\n")[3:]))
    orientation = exif_orientation(block) if isinstance(block, bytes) else None
    if orientation is None and hasattr(picture, "tag_v2"):  # TIFF
        orientation = picture.tag_v2.get(ORIENTATION)
    if orientation is None:
        orientation = _xmp_orientation(info.get("XML:com.adobe.xmp") or info.get("xmp"))
    return orientation


def exif_orientation(block: bytes) -> int | None:
    """Orientation tag of an EXIF block, None without one. Raises ValueError on a truncated or invalid block."""
    while block.startswith(_PREFIX):
        block = block[len(_PREFIX) :]
    if not block:
        return None
    order = _BYTE_ORDERS.get(block[:4])
    if order is None:
        raise ValueError("no EXIF block")
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", block, entry)
            value = block[entry + 8 : entry + 12]
            if len(value) < 4:
                raise ValueError("cut off")
            if tag == ORIENTATION:
                letter = _INTEGERS.get(kind)
                return None if letter is None or values != 1 else int(struct.unpack_from(order + letter, value)[0])
    except struct.error as error:
        raise ValueError(f"cut off ({error})") from None
    return None


def _xmp_orientation(packet: object) -> int | None:
    data = packet.encode() if isinstance(packet, str) else packet
    match = _XMP.search(data) if isinstance(data, bytes) else None
    return int(match[1]) if match else None
