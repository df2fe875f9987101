"""Reading of image, label and depth files. An unreadable or truncated file raises DataError with its name."""

from __future__ import annotations

import logging
import re
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from advent.dataset.classes import Color
from advent.dataset.exif import Turn, turn_of
from advent.dataset.formats import HEIF, RAW, decoded_formats, has_heif
from advent.errors import DataError, first_line, printable
from advent.utils.program import extra_command

log = logging.getLogger(__name__)

IMG_MEAN = (104.00698793, 116.66876762, 122.67891434)  # BGR, as in the released weights
MOST_PIXELS = 128_000_000  # three times the largest street photograph; a file of a few kilobytes can declare terabytes
_PNG_MAGIC, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_LABEL_MODES = ("L", "P", "1", "I", "I;16", "I;16B")
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
# Pillow's warnings do not name the file, and threads cannot catch them. The relevant ones are logged here, with names.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MOST_PIXELS is the limit instead


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image and read its header. Errors inside the `with` block become DataError."""
    if path.suffix.lower() in RAW:  # many contain a thumbnail, which Pillow would decode instead of the photograph
        raise DataError(f"{path}: camera raw files are not supported; convert it to JPEG, PNG or TIFF")
    try:
        with Image.open(path, formats=decoded_formats()) as picture:
            yield picture
    except OSError as error:
        if error.errno is not None:  # the file itself, not its content
            raise unreadable(path, error) from None
        raise _undecodable(path, error) from None
    except DataError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, above MOST_PIXELS
        declared = re.search(r"\d+", str(error))
        raise _too_large(path, f"{int(declared[0]):,}" if declared else "its") from None
    except Exception as error:  # Pillow's decoders raise many types: EOFError, RuntimeError, struct.error, ...
        raise _undecodable(path, error) from None


def decode_picture(path: Path) -> tuple[Image.Image, Turn]:
    """The decoded image in its own mode with EXIF orientation applied, and the stored orientation."""
    with _opened(path) as picture:
        _refuse_huge(path, *picture.size)
        before = turn_of(picture)
        picture.load()
        # A PNG may store it after its pixels; some versions of Pillow have already applied it to a TIFF.
        after = turn_of(picture)
        return after.apply(picture), before if before.orientation != 1 else after


def open_picture(path: Path) -> Image.Image:
    """The decoded image in its own mode, EXIF orientation applied."""
    picture, turn = decode_picture(path)
    warn_if_damaged(path, turn)
    return picture


def warn_if_damaged(path: Path, turn: Turn) -> None:
    """Log once per file that its metadata cannot be parsed."""
    if turn.damaged:
        _warn_of_damage(path)


@cache
def _warn_of_damage(path: Path) -> None:
    log.warning("%s: its EXIF block is damaged; the picture is taken as it is stored, not turned", printable(str(path)))


def require_same_turn(image: Path, image_turn: Turn, other: Path, other_turn: Turn, what: str) -> None:
    """Raise DataError if an image and its label or depth file differ in orientation. `what`: the other file's kind."""
    if image_turn.orientation == other_turn.orientation:
        return
    turned, orientation, partner = image, image_turn.orientation, f"its {what} {other} has {other_turn.orientation}"
    if orientation == 1:
        turned, orientation, partner = other, other_turn.orientation, f"its image {image} has 1"
    kind = "image" if turned == image else what
    raise DataError(
        f"{turned}: the {kind} has EXIF orientation {orientation}, {partner}; if their stored pixels match, remove the "
        f"tag (exiftool -Orientation= FILE), else rotate the pixels of the {kind} (mogrify -auto-orient FILE)"
    )


def unreadable(path: Path, error: OSError) -> DataError:
    """DataError for a file that the operating system cannot open."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such file")
    return DataError(f"{path}: cannot be read ({error.strerror}); make it readable or download it again")


def _undecodable(path: Path, error: Exception) -> DataError:
    unknown = isinstance(error, UnidentifiedImageError) or not str(error)
    if unknown and path.suffix.lower() in HEIF and not has_heif():
        return DataError(f"{path}: HEIC needs the package pillow-heif: {extra_command('heic')}, or convert it to JPEG")
    reason = "unknown format" if unknown else first_line(error)
    return DataError(f"{path}: cannot be read as an image ({reason}); download or unpack it again")


def _refuse_huge(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise _too_large(path, f"{width} x {height}")


def _too_large(path: Path, pixels: str) -> DataError:
    return DataError(f"{path}: {pixels} pixels exceed the limit of {MOST_PIXELS:,}; scale it down")


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright image, from its header; pixels are decoded only if the header is not enough."""
    return _upright_header(path)[0]


def stored_turn(path: Path) -> Turn:
    """Orientation stored in an image file, from its header as in `picture_size`."""
    return _upright_header(path)[1]


def _upright_header(path: Path) -> tuple[tuple[int, int], Turn]:
    with _opened(path) as picture:
        _refuse_huge(path, *picture.size)
        turn = turn_of(picture)
        tiff_turned = picture.format == "TIFF" and turn.swaps_sides  # some versions of Pillow apply it themselves
        if not tiff_turned and not (picture.format == "PNG" and _text_after_pixels(path)):
            width, height = picture.size
            return ((height, width) if turn.swaps_sides else (width, height)), turn
    decoded, turn = decode_picture(path)
    return decoded.size, turn


def _text_after_pixels(path: Path) -> bool:
    """Whether a PNG has chunks after its pixels that may contain its orientation."""
    with open(path, "rb") as handle:
        handle.seek(len(_PNG_MAGIC))
        pixels = False
        while len(head := handle.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            pixels = pixels or kind == b"IDAT"
            handle.seek(length + 4, 1)  # the checksum
    return False


def read_photo(path: Path) -> tuple[Image.Image, Turn]:
    """An RGB image with EXIF orientation applied, 8 bits per channel, and the stored orientation."""
    if path.suffix.lower() == ".png" and png_bits(path) == 16:
        raise _too_deep(path)  # Pillow would silently truncate three channels of 16 bits
    picture, turn = decode_picture(path)
    if picture.mode in _DEEP_MODES:
        raise _too_deep(path)
    return picture.convert("RGB"), turn


def read_image(path: Path) -> Image.Image:
    """An RGB image with EXIF orientation applied, 8 bits per channel."""
    photo, turn = read_photo(path)
    warn_if_damaged(path, turn)
    return photo


def _too_deep(path: Path) -> DataError:
    return DataError(f"{path}: an image has 8 bits per channel, this one has more; convert it to 8 bits first")


def png_bits(path: Path) -> int | None:
    """Bits per channel of a PNG, from its header; None for other files."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(25)
    except OSError as error:
        raise unreadable(path, error) from None
    return head[24] if len(head) == 25 and head.startswith(_PNG_MAGIC) else None


def read_ids(path: Path, palette: Mapping[int, Color] | None = None) -> np.ndarray:
    """Label ids of a label file: (H, W) uint8, a wider integer for 16-bit files.

    Without `palette` the file has one channel of ids (for a paletted image, its indices). With `palette` the file is a
    colour image, and each colour maps to an id.
    """
    return read_label(path, palette)[0]


def read_label(path: Path, palette: Mapping[int, Color] | None = None) -> tuple[np.ndarray, Turn]:
    """Label ids as in `read_ids`, and the orientation stored in the file."""
    picture, turn = decode_picture(path)
    if palette is not None:
        return ids_of_colors(np.asarray(picture.convert("RGB")), palette, path), turn
    if picture.mode not in _LABEL_MODES:
        if path.suffix.lower() == ".png" and png_bits(path) == 16:
            raise DataError(
                f"{path}: 16 bits and several channels, as SYNTHIA's original GT/LABELS have; "
                "scripts/prepare.py --synthia-labels converts them to ids"
            )
        raise DataError(
            f"{path}: a label file has one channel of class ids, this one is {picture.mode} "
            f"(a colour or multi-channel image); use the files with ids, or add a palette to its spec"
        )
    ids = np.asarray(picture)
    return (ids.astype(np.uint8) if ids.dtype == bool else ids), turn


def ids_of_colors(rgb: np.ndarray, palette: Mapping[int, Color], path: Path) -> np.ndarray:
    """(H, W, 3) uint8 colours -> (H, W) uint8 ids. Raises DataError on a colour that is not in the palette."""
    codes = _codes(rgb.astype(np.int32))
    known = {int(_codes(np.array(color, np.int32))): label_id for label_id, color in palette.items()}
    order = np.array(sorted(known), np.int32)
    positions = np.searchsorted(order, codes).clip(max=len(order) - 1)
    wrong = order[positions] != codes
    if wrong.any():
        color = rgb[wrong][0].tolist()
        raise DataError(
            f"{path}: the colour {color} ({100 * wrong.mean():.1f} % of the pixels have unknown colours) is not in the "
            "palette of its spec; add it, or use lossless files without smoothed edges"
        )
    return np.array([known[int(code)] for code in order], np.uint8)[positions]


def _codes(rgb: np.ndarray) -> np.ndarray:
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def map_ids(ids: np.ndarray, table: np.ndarray, max_id: int, path: Path, what: str) -> np.ndarray:
    """Map label ids to uint8 train ids through `table`. Raises DataError on ids above `max_id` other than 255.

    `what` ends the error message.
    """
    wrong = (ids > max_id) & (ids != 255) if ids.dtype == np.uint8 else ((ids > max_id) & (ids != 255)) | (ids < 0)
    if wrong.any():
        raise DataError(f"{path}: label id {int(ids[wrong][0])} {what}")
    return table[ids]


def read_png(path: Path) -> np.ndarray:
    """Read a PNG unconverted: (H, W) or (H, W, C) in OpenCV's channel order, uint8 or uint16.

    It uses OpenCV because Pillow silently truncates three channels of 16 bits to 8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    # OpenCV may return the upper part of a truncated PNG without an error, so its last chunk is checked first.
    complete = data.startswith(_PNG_MAGIC) and _PNG_END in data[-64:]
    if complete:
        _refuse_huge(path, *struct.unpack(">II", data[16:24]))
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if complete else None
    if values is None:
        raise DataError(f"{path}: truncated or not a PNG; download or unpack it again")
    return values


def read_16bit(path: Path, what: str) -> np.ndarray:
    """Read a 16-bit PNG with one channel or equal channels as (H, W) uint16. `what` names the content in errors."""
    values = read_png(path)
    if values.dtype != np.uint16:
        raise DataError(f"{path}: {what} is a 16-bit PNG, this one has 8 bits; use the original, unconverted file")
    if values.ndim == 3:
        if values.shape[2] > 1 and (values[..., 1:3] != values[..., :1]).any():
            raise DataError(f"{path}: {what} has one channel or equal channels, these differ; use the original file")
        values = values[..., 0]
    return np.ascontiguousarray(values)


def read_values(path: Path, what: str) -> np.ndarray:
    """Read an (H, W) array of numbers unconverted: a 16-bit PNG, a NumPy file (.npy), a one-channel TIFF or EXR."""
    suffix = path.suffix.lower()
    if suffix == ".png":
        return read_16bit(path, what)
    if suffix not in (".npy", ".tif", ".tiff", ".exr"):
        raise DataError(f"{path}: {what} is a 16-bit PNG, a .npy, a .tif or a .exr; convert it to one of them")
    try:
        if suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            values = _read_exr(path, what) if suffix == ".exr" else np.asarray(open_picture(path))
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, EOFError):
        raise DataError(f"{path}: truncated or not a .npy file of numbers; create it again") from None
    if values.ndim != 2 or values.dtype.kind not in "uif" or values.dtype == np.uint8 or values.size == 0:
        shape = "x".join(map(str, values.shape))
        raise DataError(f"{path}: {what} is (height, width) with 16-bit or float values, not {values.dtype} {shape}")
    return values


def _read_exr(path: Path, what: str) -> np.ndarray:
    """Read an OpenEXR file with one channel, or equal ones, of any name: (H, W) float16, float32 or uint32."""
    try:
        import OpenEXR  # an optional extra; OpenCV's wheels read EXR not at all, or only with an environment variable
    except ImportError:
        raise DataError(
            f"{path}: EXR needs the package OpenEXR: pip install -e '.[exr]', or convert it to .npy"
        ) from None
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with OpenEXR.File(str(path), header_only=True) as file:
            (left, top), (right, bottom) = file.header()["dataWindow"]
        _refuse_huge(path, int(right) - int(left) + 1, int(bottom) - int(top) + 1)
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = [channel.pixels for channel in file.channels().values()]
    except DataError:
        raise
    except Exception as error:  # the library raises RuntimeError and others
        raise DataError(f"{path}: cannot be read as EXR ({first_line(error)}); download or unpack it again") from None
    if not channels or any(not np.array_equal(channels[0], other, equal_nan=True) for other in channels[1:]):
        raise DataError(
            f"{path}: {what} has one channel or equal channels, this file has {len(channels)} different ones"
        )
    return channels[0]


def network_input(rgb: np.ndarray, mean: Sequence[float] = IMG_MEAN) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (3, H, W) float32 BGR minus the mean: the convention of the released weights.

    It serves ADVENT's `preprocess` and the items of a data set, which are contiguous NumPy planes. `network_images`
    computes the same values for uint8 batches that are already on a device. A test proves them equal, bit for bit.
    """
    planes = np.empty((3, *rgb.shape[:2]), np.float32)
    for plane, channel, value in zip(planes, (2, 1, 0), mean, strict=True):
        np.subtract(rgb[:, :, channel], np.float32(value), out=plane, dtype=np.float32)
    return planes
