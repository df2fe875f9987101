"""Fixtures of the data tests."""

from pathlib import Path

import pytest

import folders


@pytest.fixture
def synthia(tmp_path: Path) -> Path:
    return folders.make_synthia(tmp_path)


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    return folders.make_cityscapes(tmp_path)


@pytest.fixture
def mapillary(tmp_path: Path) -> Path:
    return folders.make_mapillary(tmp_path)
