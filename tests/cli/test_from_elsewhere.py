"""Splits and pseudo labels that others made: the release's and IntraDA's forms are taken as they are."""

import shutil
from pathlib import PurePosixPath

import pytest

import tiny
import train_intra


@pytest.fixture
def elsewhere(trained, tmp_path):
    """A folder as IntraDA leaves it: two lists, and pseudo labels by base name."""
    ours = trained / "exp/quick/rank"
    folder = tmp_path / "intrada"
    (folder / "color_masks").mkdir(parents=True)
    for half in ("easy_split.txt", "hard_split.txt"):
        names = (ours / half).read_text().split()
        (folder / half).write_text("\r\n".join(names) + "\r\n")
        for name in names:
            base = PurePosixPath(name).name
            shutil.copy(ours / "color_masks" / name, folder / "color_masks" / base)
    return folder


def test_lists_and_labels_from_elsewhere(trained, tmp_path, elsewhere, caplog):
    root = shutil.copytree(trained, tmp_path / "copy")
    for stage in ("rank", "ida"):
        shutil.rmtree(root / "exp/quick" / stage)
    line = tiny.command_line(root, "quick:ida", f"STAGE.RANKING_FROM={elsewhere}")
    assert train_intra.main(line) == 0
    assert "nobody knows which network made this ranking" in caplog.text
    assert (root / "exp/quick/ida/model_5.pth").is_file()


def test_without_its_lists_the_folder_is_refused(trained, tmp_path, elsewhere, capsys):
    (elsewhere / "hard_split.txt").unlink()
    line = tiny.command_line(trained, "quick:ida", f"--exp-suffix={tmp_path.name}", "TRAIN.RESTORE_FROM=x.pth",
                             f"STAGE.RANKING_FROM={elsewhere}")  # fmt: skip
    assert train_intra.main(line) == 2
    assert str(elsewhere / "hard_split.txt") in capsys.readouterr().err
