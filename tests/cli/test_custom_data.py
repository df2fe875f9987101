"""docs/own-data.md: all code blocks are executed; every file is written and every command is run.

Changed: fewer and smaller scenes, a tiny network, a few iterations. The commands keep their other arguments.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import doctor
import make_streets
import pipeline
import test as test_script
import test_intra
import train
from helpers import tiny_data

PAGE = (Path(__file__).parents[2] / "docs/own-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SCRIPTS = {
    "scripts/make_streets.py": make_streets,
    "scripts/doctor.py": doctor,
    "scripts/pipeline.py": pipeline,
    "train.py": train,
    "test.py": test_script,
    "test_intra.py": test_intra,
}
SMALL = [*tiny_data.NETWORK, *tiny_data.SIZES, *tiny_data.SHORT, "DEVICE=cpu"]


def run(line: str) -> None:
    """Run one line of a shell block; this project's commands are called in process."""
    words = shlex.split(line)
    if words[0] != "python":
        subprocess.run(["bash", "-ec", line], check=True)
        return
    arguments = words[2:]
    if words[1].endswith("make_streets.py"):
        arguments[arguments.index("--count") + 1], arguments[arguments.index("--size") + 1] = "6", "64x48"
        arguments += ["--workers", "1"]
    else:
        arguments += SMALL
    assert SCRIPTS[words[1]].main(arguments) == 0, line


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The folder after all code blocks have run."""
    root = tmp_path_factory.mktemp("reader")
    photographs = root / "data/my_photos/holiday"
    photographs.mkdir(parents=True)
    for index in range(8):
        picture, _ = tiny_data.picture(index, 1)
        Image.fromarray(picture).save(photographs.parent / ["", "holiday"][index % 2] / f"{index}.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for kind, text in BLOCKS:
            if kind == "yaml":
                Path(re.match(r"# (\S+\.yml)", text)[1]).write_text(text)
            elif kind == "python":
                exec(compile(text, "docs/own-data.md", "exec"), {})
            else:
                assert kind == "bash"
                for line in text.splitlines():
                    run(line)
    return root


def test_page_has_all_three_walkthroughs():
    assert [kind for kind, _ in BLOCKS].count("yaml") == 4
    assert [kind for kind, _ in BLOCKS].count("bash") >= 5


def test_photographs_to_an_adapted_model(executed):
    for stage in ("source_only", "daf", "isl", "ida"):
        assert list((executed / "experiments/my_photos" / stage).glob("model_*.pth")), stage
    predicted = sorted((executed / "predictions/labelIds").rglob("*.png"))
    assert len(predicted) == 8
    assert len([file for file in predicted if file.parent.name == "holiday"]) == 4
    assert np.asarray(Image.open(predicted[0])).max() < 7
    assert "0,flat,128,64,128" in (executed / "predictions/classes.csv").read_text()


def test_two_classes(executed):
    ids = {int(i) for f in (executed / "road_predictions/labelIds").rglob("*.png") for i in np.unique(Image.open(f))}
    assert ids <= {0, 1}
    assert (executed / "road_predictions/classes.csv").read_text().splitlines()[2] == "1,road,128,64,128"
    config = (executed / "experiments/roads/advent/config.yml").read_text()
    assert "- road" in config  # the class names are stored in the config


def test_several_folders_are_scored(executed):
    table = (executed / "experiments/roads_drives/advent/results.md").read_text()
    assert "background" in table
    assert "road" in table


def test_classes_travel_with_the_config(executed, monkeypatch, tmp_path, capsys):
    """The checkpoint's config stores the classes: the source's spec and images are not needed."""
    monkeypatch.chdir(executed)
    config = tmp_path / "config.yml"
    config.write_text((executed / "experiments/roads_drives/advent/config.yml").read_text())
    (executed / "sim_road.yml").rename(tmp_path / "sim_road.yml")
    (executed / "data/sim_road").rename(tmp_path / "sim_road")
    try:
        assert test_script.main(["--cfg", str(config)]) == 0
        assert "background" in capsys.readouterr().out
        assert train.main(["--cfg", str(config), "--overwrite"]) == 2
        assert "sim_road.yml" in capsys.readouterr().err
    finally:
        (tmp_path / "sim_road.yml").rename(executed / "sim_road.yml")
        (tmp_path / "sim_road").rename(executed / "data/sim_road")
