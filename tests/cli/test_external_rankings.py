"""External inputs: splits and pseudo labels as of the authors' code and IntraDA, and AdaptSegNet's network."""

import shutil
from pathlib import PurePosixPath

import pytest
import torch

import entropy
import test as test_script
import train_intra
from advent.build import build_network
from advent.config.loading import load_config
from helpers import tiny_data


@pytest.fixture
def external_ranking(trained, tmp_path):
    """Folder in IntraDA's format: two lists, and pseudo labels by base name."""
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


def test_external_lists_and_labels(trained, tmp_path, external_ranking, caplog):
    root = shutil.copytree(trained, tmp_path / "copy")
    for stage in ("rank", "ida"):
        shutil.rmtree(root / "exp/quick" / stage)
    line = tiny_data.command_line(root, "quick:ida", f"STAGE.RANKING_FROM={external_ranking}")
    assert train_intra.main(line) == 0
    assert "it is unknown which network made this ranking" in caplog.text
    assert (root / "exp/quick/ida/model_5.pth").is_file()


def test_without_its_lists_the_folder_is_refused(trained, tmp_path, external_ranking, capsys):
    (external_ranking / "hard_split.txt").unlink()
    line = tiny_data.command_line(
        trained,
        "quick:ida",
        f"--exp-suffix={tmp_path.name}",
        "TRAIN.RESTORE_FROM=x.pth",
        f"STAGE.RANKING_FROM={external_ranking}",
    )
    assert train_intra.main(line) == 2
    assert str(external_ranking / "hard_split.txt") in capsys.readouterr().err


@pytest.fixture
def adaptsegnet(tmp_path):
    """ADVENT's names and shapes; of the classifier only the first two convolutions were trained."""
    config = load_config("quick:daf", [*tiny_data.NETWORK, "MODEL.NAME=DeepLabv2"])
    state = build_network(config).state_dict()
    for index in (0, 1):
        state[f"layer6.conv2d_list.{index}.weight"] *= 3
    torch.save(state, tmp_path / "multi.pth")
    return tmp_path / "multi.pth"


def test_scoring_adaptsegnets_network_warns(trained, tmp_path, adaptsegnet, capsys, caplog):
    def scored(*overrides):
        caplog.clear()
        line = tiny_data.command_line(
            trained,
            "quick:daf",
            "MODEL.NAME=DeepLabv2",
            "TEST.MODE=single",
            f"TEST.RESTORE_FROM={adaptsegnet}",
            f"EXP_ROOT={tmp_path}",
            *overrides,
        )
        assert test_script.main(line) == 0
        table = capsys.readouterr().out
        return table, [
            log_record.getMessage() for log_record in caplog.records if "MODEL.DILATIONS" in log_record.getMessage()
        ]

    table, warnings = scored()
    assert len(warnings) == 1
    assert "MODEL.DILATIONS=[6,12]" in warnings[0]
    assert scored() == (table, warnings)  # a cached score does not suppress the warning
    other, warnings = scored("MODEL.DILATIONS=[6,12]")
    assert warnings == []
    assert other != table


def test_ranking_by_adaptsegnets_network_warns(trained, tmp_path, adaptsegnet, caplog):
    line = tiny_data.command_line(
        trained,
        "quick:rank",
        "MODEL.NAME=DeepLabv2",
        "RANK.MAP=entropy",
        f"TRAIN.RESTORE_FROM={adaptsegnet}",
        f"EXP_ROOT={tmp_path}",
    )
    assert entropy.main(line) == 0
    assert "MODEL.DILATIONS=[6,12]" in caplog.text
