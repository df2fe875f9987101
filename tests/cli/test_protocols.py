"""All protocols end to end on rendered streets in Cityscapes' and Mapillary's layouts, with a tiny network."""

import json

import pytest

import make_streets
import pipeline
import reproduce
import test as test_script
import train
from helpers import tiny_data

# Four iterations cannot train sixteen classes: the threshold accepts every pixel as a pseudo label.
BRIEF = ["TRAIN.EARLY_STOP=4", "ISL.THRESHOLD=0.01"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered")
    common = ["--size", "96x64", "--workers", "1"]
    for name, options in (
        ("streets", ["--count", "4", "--seed", "1"]),
        ("streets_real", ["--count", "4", "--val-count", "2", "--seed", "2", "--style", "real"]),
        ("streets_mapillary", ["--count", "4", "--val-count", "2", "--seed", "3", "--layout", "mapillary"]),
    ):
        assert make_streets.main(["--out", str(root / name), *common, *options]) == 0
    return root


def command_line(root, target):
    sizes = ["TRAIN.INPUT_SIZE_SOURCE=[96,64]", "TRAIN.INPUT_SIZE_TARGET=[96,64]", "TEST.INPUT_SIZE_TARGET=[96,64]"]
    return [
        "--data-root",
        str(root),
        "--exp-root",
        str(root / "exp"),
        *tiny_data.NETWORK,
        *tiny_data.SHORT,
        *sizes,
        "SOURCE=streets",
        f"TARGET={target}",
        *BRIEF,
    ]


@pytest.mark.parametrize(
    ("protocol", "folder", "target"),
    [
        ("EP1", "ep1", "streets_real"),
        ("EP2", "ep2", "streets_real"),
        ("EP2-low", "ep2_low", "streets_real"),
        ("EP3", "ep3", "streets_mapillary"),
        ("EP3-low", "ep3_low", "streets_mapillary"),
    ],
)
def test_protocol(rendered, protocol, folder, target, capsys):
    arguments = ["--protocol", protocol, "--steps", "1", *command_line(rendered, target)]
    assert reproduce.main(arguments) == 0
    said = capsys.readouterr().out
    for words in (
        "difference ida",
        "paper DAF+IDA (oracle)",
        "ours ida, best (oracle)",
        "ours ida, last",
        "paper CTRL",
    ):
        assert words in said
    assert ("CTRL's five runs" in said) == ("low" not in protocol)
    folder = rendered / "exp" / folder
    results = json.loads((folder / "results.json").read_text())
    assert list(results["results"]) == list(results["oracle"]) == ["daf", "isl", "ida"]
    classes = 16 if protocol == "EP1" else 7
    last = results["results"]["ida"]
    assert len(last["iou"]) == classes
    assert ("mIoU13" in last) == (classes == 16)
    easy = (folder / "rank/easy_split.txt").read_text().split()
    assert len(easy) == int(4 * 0.66)
    suffix = ".jpg" if target == "streets_mapillary" else ".png"
    assert all(name.endswith(suffix) for name in easy)
    assert all((folder / "rank/color_masks" / name).with_suffix(".png").is_file() for name in easy)
    before = (folder / "ida/resume.pth").stat().st_mtime_ns
    assert reproduce.main(arguments) == 0  # resumes with nothing left to do
    assert capsys.readouterr().out.splitlines()[-1] == said.splitlines()[-1]
    assert (folder / "ida/resume.pth").stat().st_mtime_ns == before


def test_seeds_are_averaged(rendered, capsys):
    arguments = ["--protocol", "EP2-low", "--seeds", "1", "2", "--steps", "1", *command_line(rendered, "streets_real")]
    assert reproduce.main([*arguments, "--exp-suffix", "both"]) == 0
    said = capsys.readouterr().out
    assert "all, 2 seeds" in said
    assert "±" in next(line for line in said.splitlines() if "ours ida, last" in line)
    record = json.loads((rendered / "exp/ep2_low_both_seed1/reproduction.json").read_text())
    rows = [run["results"]["ida"] for run in record["runs"]]
    assert rows[0]["snapshot"] != rows[1]["snapshot"]


def test_dry_run_lists_missing_inputs_and_runs_nothing(tmp_path, capsys):
    arguments = [
        "--protocol",
        "EP1",
        "--dry-run",
        "--steps",
        "1",
        "--data-root",
        str(tmp_path),
        "--exp-root",
        str(tmp_path / "exp"),
        *tiny_data.NETWORK,
        *(f"TRAIN.INPUT_SIZE_{domain}=[96,64]" for domain in ("SOURCE", "TARGET")),  # steps are timed
        "daf:TRAIN.RESTORE_FROM=nowhere.pth",
    ]
    assert reproduce.main(arguments) == 0
    said = capsys.readouterr().out
    assert "missing: source SYNTHIA" in said
    assert "missing: target Cityscapes" in said
    assert "missing: starting weights nowhere.pth" in said
    assert "90,001" in said
    assert "unknown" in said  # the labelling time of missing images
    assert not (tmp_path / "exp").exists()
    del arguments[2]
    assert reproduce.main(arguments) == 2
    assert "error: missing: source SYNTHIA" in capsys.readouterr().err


def test_daf_as_released_and_normalised_ranking(rendered):
    """The settings of the authors' code run: depth squared on the target, its rare ids in the ranking."""
    arguments = ["--cfg", "ep1", "--exp-suffix=release", *command_line(rendered, "streets_real")]
    assert pipeline.main([*arguments, "TRAIN.DEPTH_POWER=[1,2]", "RANK.NORMALIZE=release"]) == 0


def test_intrada_as_a_baseline(rendered):
    """AdvEnt, ranking by entropy alone, IDA: no stage uses depth."""
    assert pipeline.main(["--cfg", "intra", *command_line(rendered, "streets_real")]) == 0
    folder = rendered / "exp/ep1"
    assert (folder / "advent_rank/easy_split.txt").is_file()
    results = json.loads((folder / "results.json").read_text())["results"]
    assert list(results) == ["advent", "advent_ida"]


def test_dada_on_mapillary(rendered):
    """The config of DADA's published synthia2mapillary_dada.pth is trained and scored."""
    arguments = ["--cfg", "ep3_dada", *command_line(rendered, "streets_mapillary")]
    assert train.main(arguments) == 0
    checkpoint = rendered / "exp/ep3/dada/model_3.pth"
    assert test_script.main([*arguments, "TEST.MODE=single", f"TEST.RESTORE_FROM={checkpoint}"]) == 0
    record = json.loads((rendered / "exp/ep3/dada/results.json").read_text())
    assert list(record["results"][0]["iou"]) == ["flat", "construction", "object", "nature", "sky", "human", "vehicle"]
    assert "GEOMETRY_TARGET: pad" in (rendered / "exp/ep3/dada/config.yml").read_text()
