"""Keys of cached scores: settings that affect a score change the key, paths do not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from advent.build import evaluation_data, target_data
from advent.checkpoints import provenance
from advent.config.loading import flat, load_config
from advent.errors import ConfigError
from advent.evaluation.score_key import WITHOUT_EFFECT_ON_SCORES, data_digest, setting_digest
from helpers import tiny_data
from ida.pipeline.label_quality import training_truth

CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path: Path) -> Any:
    tiny_data.make_target(tmp_path / "CamVid", count=2)
    return load_config("quick:daf", [f"DATA_ROOT={tmp_path}", *tiny_data.SIZES])


def key(config: Any, device: torch.device = CPU) -> str:
    return setting_digest(config, device, [evaluation_data(config)])


def test_the_same_setting_has_the_same_key(config: Any) -> None:
    assert key(config) == key(config)
    elsewhere = {"NUM_WORKERS": 3, "EXP_ROOT": "other", "DEVICE": "cpu", "DATA_CACHE": None}
    assert key(config.model_copy(update=elsewhere)) == key(config)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_every_config_key_changes_the_key_except_listed_ones(config: Any) -> None:
    dataset, seen = evaluation_data(config), {key(config)}
    sections = tuple(name for name in WITHOUT_EFFECT_ON_SCORES if name.endswith("."))
    names = [name for name, _ in flat(config) if not name.startswith(sections)]
    changed = [name for name in names if name not in WITHOUT_EFFECT_ON_SCORES]
    assert {"MODEL.STRIDE_IN", "MODEL.OUTPUT_STRIDE", "MODEL.FEATURE_SCALE", "TEST.FLIP", "TRAIN.AMP"} <= set(changed)
    for name in changed:
        *parents, last = name.split(".")
        holder = config
        for parent in parents:
            holder = getattr(holder, parent)
        values = holder.__dict__  # not checked: any other value will do
        before, values[last] = values[last], "something else"
        seen.add(setting_digest(config, CPU, [dataset]))
        values[last] = before
    assert len(seen) == 1 + len(changed)


@pytest.mark.parametrize("folder", ["val", "valannot"])
def test_an_image_or_label_replaced_under_its_name_changes_the_key(config: Any, tmp_path: Path, folder: str) -> None:
    before, file = key(config), tmp_path / "CamVid" / folder / "0000.png"
    content, status = file.read_bytes(), file.stat()
    file.write_bytes(content + b" ")  # another size, same modification time
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    longer = key(config)
    file.write_bytes(content)  # same size, another modification time
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    later = key(config)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len({before, longer, later}) == 3
    assert key(config) == before


@pytest.mark.parametrize(
    "change",
    [
        {"score_size": (32, 24)},
        {"geometry": "pad"},
        {"fill_label": 3},
        {"palette": {0: (1, 2, 3)}},
        {"max_label_id": 200},
        {"ids": {"street7": {"road": (1,)}}},
    ],
)
def test_spec_changes_the_key(config: Any, change: dict[str, Any]) -> None:
    dataset = evaluation_data(config)
    before = data_digest(dataset)
    dataset.spec = dataset.spec.model_copy(update=change)
    assert data_digest(dataset) != before


def test_code_and_device_change_the_key(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(config)
    assert key(config, torch.device("meta")) != before
    monkeypatch.setattr(provenance, "_revision", lambda: {"sha256": "another source"})
    assert key(config) != before


def test_another_geometry_of_the_target_is_refused_wherever_it_is_read(config: Any, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "CamVid/valannot", tmp_path / "CamVid/trainannot")
    config.GEOMETRY_TARGET = "pad"
    for read in (evaluation_data, target_data, lambda given: training_truth(given, ["0000.png"])):
        with pytest.raises(ConfigError, match="GEOMETRY_TARGET: pad"):
            read(config)
