"""Image file formats that Pillow decodes in this process; HEIC needs the optional package pillow-heif."""

from __future__ import annotations

import importlib
from functools import cache

from PIL import Image

HEIF = (".heic", ".heif", ".hif", ".heics", ".heifs")
# Camera raw files: Pillow does not decode them.
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")
# EPS would run Ghostscript on an untrusted file; WMF is Windows only; MPEG is video; the others have no decoder.
_LEFT_OUT = ("EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5")
_COMMON = ("PNG", "JPEG")  # tried first


@cache
def has_heif() -> bool:
    """Whether pillow-heif is installed; if so, it is registered with Pillow."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()  # an optional extra
    except ImportError:
        return False
    return True


@cache
def decoded_formats() -> tuple[str, ...]:
    """Pillow's names of the accepted formats."""
    Image.init()
    has_heif()
    return (*_COMMON, *[name for name in Image.OPEN if name not in (*_COMMON, *_LEFT_OUT)])


@cache
def picture_suffixes() -> frozenset[str]:
    """Lower-case suffixes of image files. HEIC and raw files are included, so that unreadable ones are reported."""
    formats = {*decoded_formats(), "MPO"}  # MPO is opened as JPEG
    known = (suffix for suffix, name in Image.registered_extensions().items() if name in formats)
    return frozenset((*known, *HEIF, *RAW))
