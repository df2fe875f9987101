"""Which files are pictures, by what Pillow decodes in this process; HEIC with the optional package pillow-heif."""

from __future__ import annotations

import importlib
from functools import cache

from PIL import Image

HEIF = (".heic", ".heif", ".hif", ".heics", ".heifs")
# Camera raw files: photographs, but not ones that Pillow decodes.
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")
# EPS would start Ghostscript on a file from anywhere, WMF is Windows' own, MPEG a video; the others have no decoder.
_LEFT_OUT = ("EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5")
_COMMON = ("PNG", "JPEG")  # tried first


@cache
def has_heif() -> bool:
    """Whether pillow-heif is installed; it then serves Pillow."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()  # an optional extra
    except ImportError:
        return False
    return True


@cache
def decoded_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are opened."""
    Image.init()
    has_heif()
    return (*_COMMON, *[name for name in Image.OPEN if name not in (*_COMMON, *_LEFT_OUT)])


@cache
def picture_suffixes() -> frozenset[str]:
    """Suffixes, in small letters, of pictures. HEIC and raw files count: those not readable here are then named."""
    formats = {*decoded_formats(), "MPO"}  # MPO is opened as JPEG
    known = (suffix for suffix, name in Image.registered_extensions().items() if name in formats)
    return frozenset((*known, *HEIF, *RAW))
