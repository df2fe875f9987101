"""Data sets with `render`: rendered on first use, completed after an interruption, and compared by digest."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from advent.dataset import rendered
from advent.dataset.base_dataset import StreetDataset
from advent.dataset.classes import load_classes
from advent.dataset.rendered import rendered_digest
from advent.dataset.resolved_layout import resolve_root
from advent.dataset.spec import DatasetSpec, load_spec
from advent.errors import ConfigError, DataError
from make_streets import VAL_OFFSET, make_one

SETUP = "render: {count: 2, size: [64, 48], seed: 9, style: real, split: val, sha256: %s}"


def spec_of(folder: Path, sha256: str = "null", setup: str = SETUP) -> DatasetSpec:
    file = folder / f"scenes_{sha256[:4]}.yml"
    file.write_text(f"base: streets_real\nname: scenes\nfolder: scenes\n{setup.replace('%s', sha256)}\n")
    return load_spec(file)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes, rendered through the spec; read-only."""
    folder = tmp_path_factory.mktemp("rendered")
    return resolve_root(folder, None, spec_of(folder))


def test_a_missing_folder_is_rendered_as_the_tool_renders_it(scenes: Path, tmp_path: Path) -> None:
    for index in range(2):
        make_one((index, True), out=tmp_path, size=(64, 48), seed=9, style="real", layout="cityscapes")
    assert rendered_digest(tmp_path) == rendered_digest(scenes)
    data = StreetDataset(
        spec_of(tmp_path), scenes, "val", load_classes("street16"), size=(64, 48), with_labels=True, with_depth=False
    )
    assert len(data) == 2
    assert data[1]["label"].shape == (48, 64)
    assert len(data) < VAL_OFFSET  # validation scenes have other random numbers than training scenes


def test_rendered_scenes_are_not_rendered_again(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "RENDERER", scenes / "missing.py")
    assert resolve_root(scenes.parent, None, spec_of(scenes.parent)) == scenes


def test_an_interrupted_rendering_is_completed(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    root = resolve_root(tmp_path, None, spec)
    before = rendered_digest(root)
    (removed, *_) = sorted(root.rglob("*_leftImg8bit.png"))
    removed.unlink()
    assert rendered_digest(root) != before
    assert resolve_root(tmp_path, None, spec) == root
    assert rendered_digest(root) == before


def test_the_log_compares_the_digest_with_the_documented_one(scenes: Path, caplog: pytest.LogCaptureFixture) -> None:
    digest = rendered_digest(scenes)
    with caplog.at_level(logging.INFO):
        resolve_root(scenes.parent, None, spec_of(scenes.parent, digest))
        resolve_root(scenes.parent, None, spec_of(scenes.parent, "0" * 64))
    same, other = (record.getMessage() for record in caplog.records)
    assert "2 rendered scenes" in same
    assert f"{digest[:12]} (as documented)" in same
    assert f"{digest[:12]} instead of the documented 000000000000" in other
    assert "OpenCV or NumPy" in other
    assert "\n" not in other


def test_without_a_checkout_the_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "CHECKOUT", False)
    with pytest.raises(
        DataError, match=r"^\S*scenes: no such folder, and scenes is rendered by a tool of the checkout"
    ):
        resolve_root(tmp_path, None, spec_of(tmp_path))
    assert not (tmp_path / "scenes").exists()


def test_an_error_of_the_renderer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes/streets.json").write_text('{"version": 0}')
    with pytest.raises(DataError, match=r"could not be rendered: .*streets.json: made by another version") as error:
        resolve_root(tmp_path, None, spec_of(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ("render: {count: 2, size: [64, 48], split: val}", "style synthia has no split val"),
        ("render: {count: 0, size: [64, 48]}", "render.count: 0 is too small; at least 1"),
        ("render: {size: [64, 48]}", "the key 'count' is missing"),
        ("render: {count: 1, size: [64, 48], style: reel}", "did you mean real"),
        ("render: {count: 1, size: [64, 48], sed: 1}", "did you mean seed"),
        ("splits: {val: [val]}\nrender: {count: 1, size: [64, 48]}", "renders the split train, which is not in splits"),
    ],
)
def test_mistakes_in_a_setup_are_one_line(tmp_path: Path, setup: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        spec_of(tmp_path, "null", setup)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
