"""Every protocol end to end on rendered streets with a tiny network: Cityscapes' and Mapillary's layouts for real."""

import json

import make_streets
import pipeline
import pytest
import tiny

# Four iterations teach sixteen classes nothing: every pixel may become a pseudo label.
BRIEF = ["TRAIN.EARLY_STOP=4", "ISL.THRESHOLD=0.01"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered")
    common = ["--size", "96x64", "--workers", "2"]
    for name, more in (
        ("streets", ["--count", "4", "--seed", "1"]),
        ("streets_real", ["--count", "4", "--val-count", "2", "--seed", "2", "--style", "real"]),
        ("streets_mapillary", ["--count", "4", "--val-count", "2", "--seed", "3", "--layout", "mapillary"]),
    ):
        assert make_streets.main(["--out", str(root / name), *common, *more]) == 0
    return root


@pytest.mark.parametrize(("protocol", "target"), [
    ("ep1", "streets_real"), ("ep2", "streets_real"), ("ep2_low", "streets_real"), ("ep3", "streets_mapillary"),
    ("ep3_low", "streets_mapillary"),
])  # fmt: skip
def test_protocol(rendered, protocol, target, capsys):
    sizes = ["TRAIN.INPUT_SIZE_SOURCE=[96,64]", "TRAIN.INPUT_SIZE_TARGET=[96,64]", "TEST.INPUT_SIZE_TARGET=[96,64]"]
    arguments = ["--cfg", protocol, "--data-root", str(rendered), "--exp-root", str(rendered / "exp"), *tiny.NETWORK,
                 *tiny.SHORT, *sizes, "SOURCE=streets", f"TARGET={target}", *BRIEF]  # fmt: skip
    assert pipeline.main(arguments) == 0
    folder = rendered / "exp" / protocol
    results = json.loads((folder / "results.json").read_text())["results"]
    assert list(results) == ["daf", "isl", "ida"]
    classes = 16 if protocol == "ep1" else 7
    assert len(results["ida"]["iou"]) == classes
    assert ("mIoU13" in results["ida"]) == (classes == 16)
    easy = (folder / "rank/easy_split.txt").read_text().split()
    assert len(easy) == int(4 * 0.66)
    suffix = ".jpg" if target == "streets_mapillary" else ".png"
    assert all(name.endswith(suffix) for name in easy)
    assert all((folder / "rank/color_masks" / name).with_suffix(".png").is_file() for name in easy)
    capsys.readouterr()


def test_daf_as_released_and_normalised_ranking(rendered):
    """The release's own settings run through: depth squared on the target, its rare ids in the ranking."""
    roots = ["--data-root", str(rendered), "--exp-root", str(rendered / "exp"), "--exp-suffix=release"]
    arguments = ["--cfg", "ep1", *roots, *tiny.NETWORK, *tiny.SHORT, *tiny.SIZES, "SOURCE=streets",
                 "TARGET=streets_real", *BRIEF, "TRAIN.DEPTH_POWER=[1,2]", "RANK.NORMALIZE=release"]  # fmt: skip
    assert pipeline.main(arguments) == 0
