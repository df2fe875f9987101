"""Corruptions of the tiny data, checkpoints and results; each is, or returns, a function of the data's root."""

import os
import shutil
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch

from helpers import tiny_data


def remove(*parts):
    def spoil(root):
        path = root.joinpath(*parts)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def overwrite(content, *parts):
    def spoil(root):
        path = root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return spoil


def picture(name, value, channels=(), kind=np.uint8):
    """Overwrite a file of the source with an image of one value."""
    size = (tiny_data.HEIGHT, tiny_data.WIDTH, *channels)
    return lambda root: tiny_data.write_png(root / "streets" / name, np.full(size, value, kind))


def label_id(value):
    return picture("parsed_LABELS/0000000.png", value)


def cut(*parts):
    def spoil(root):
        path = root.joinpath(*parts)
        path.write_bytes(path.read_bytes()[:-40])

    return spoil


def split_files(easy, hard):
    """A ranking without provenance: the two split files alone."""

    def spoil(root):
        folder = root / "exp/quick/rank"
        folder.mkdir(parents=True)
        (folder / "easy_split.txt").write_text(easy)
        (folder / "hard_split.txt").write_text(hard)
        torch.save({"a.weight": torch.zeros(1)}, root / "weights.pth")

    return spoil


def earlier_results(root):
    folder = root / "exp/quick/daf"
    folder.mkdir(parents=True)
    torch.save({}, folder / "model_3.pth")


def read_only(root):
    if os.geteuid() == 0:
        pytest.skip("the superuser may write anywhere")
    (root / "exp").mkdir()
    (root / "exp").chmod(0o500)


def checkpoint(content):
    return lambda root: torch.save(content, root / "weights.pth")


def save_resume(root, content):
    folder = root / "exp/quick/daf"
    folder.mkdir(parents=True)
    torch.save(content, folder / "resume.pth")


def write_16bit(path, shape, value=40000):
    cv2.imwrite(str(path), np.full(shape, value, np.uint16))


def all_labels(value):
    def spoil(root):
        for file in (root / "streets/parsed_LABELS").iterdir():
            tiny_data.write_png(file, np.full((tiny_data.HEIGHT, tiny_data.WIDTH), value, np.uint8))

    return spoil


def loop_of_links(root):
    shutil.rmtree(root / "CamVid/train")
    (root / "CamVid/train").mkdir()
    (root / "CamVid/train/again").symlink_to(root / "CamVid/train")


def link_to_itself(root):
    (root / "CamVid/train/0003.png").unlink()
    (root / "CamVid/train/0003.png").symlink_to("0003.png")


def both(*spoils):
    return lambda root: [spoil(root) for spoil in spoils]


def nothing(root):
    pass


def png_that_claims(path, width, height, bits=8):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
