"""Fixtures of the data set tests: small folders in the published layouts."""

from pathlib import Path

import pytest

from helpers import dataset_layouts


@pytest.fixture
def synthia(tmp_path: Path) -> Path:
    return dataset_layouts.make_synthia(tmp_path)


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    return dataset_layouts.make_cityscapes(tmp_path)


@pytest.fixture
def mapillary(tmp_path: Path) -> Path:
    return dataset_layouts.make_mapillary(tmp_path)
