"""Device settings (TF32, determinism) and their provenance; CUDA is replaced by patched torch.cuda functions."""

import json
import logging
import shutil

import pytest
import torch

import entropy
import reproduce
import test as test_script
from advent.config.loading import config_digest, load_config
from advent.runtime import device as module
from helpers import tiny_data


@pytest.fixture(autouse=True)
def settings_restored():
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags
    module.set_deterministic(False)


def tf32() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("mode", "convolutions", "products"),
    [
        ("default", True, False),
        ("off", False, False),
        ("on", True, True),
    ],
)
def test_tf32_of_convolutions_and_matrix_products(mode, convolutions, products):
    module.prepare_device(load_config("quick:daf", ["DEVICE=cpu", f"TRAIN.TF32={mode}"]))
    assert tf32() == (convolutions, products)


def test_tf32_default_is_pytorchs_and_keeps_digests():
    assert tf32() == (True, False)
    plain = config_digest(load_config("quick:daf"))
    assert config_digest(load_config("quick:daf", ["TRAIN.TF32=default"])) == plain
    assert config_digest(load_config("quick:daf", ["TRAIN.TF32=off"])) != plain


@pytest.mark.parametrize(("capability", "said"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_tf32_convolutions_on_ampere_are_logged(capability, said, monkeypatch, caplog):
    monkeypatch.setattr(module, "pick_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    with caplog.at_level(logging.INFO):
        device = module.prepare_device(load_config("quick:daf"))
    assert ("TRAIN.TF32" in caplog.text) is said
    facts = {"type": "cuda", "name": "a GPU", "tf32": {"convolutions": said, "matmul": False}}
    assert module.device_facts(device) == facts


@pytest.mark.parametrize(
    ("script", "cfg", "record"),
    [
        (test_script, "quick:daf", "daf/results.json"),
        (entropy, "quick:rank", "rank/provenance.json"),
    ],
    ids=["test", "rank"],
)
def test_evaluation_and_ranking_are_deterministic_and_record_the_device(trained, tmp_path, script, cfg, record):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    assert script.main(tiny_data.command_line(copy, cfg, "--deterministic")) == 0
    assert torch.are_deterministic_algorithms_enabled()
    facts = json.loads((copy / "exp/quick" / record).read_text())["device"]
    assert facts["type"] == "cpu"
    assert facts["name"]


def test_reproduce_lists_missing_data_before_measuring(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("reporting.estimate.measure", lambda *_: pytest.fail("measured although the data are missing"))
    assert reproduce.main(["--protocol", "EP1", "--data-root", str(tmp_path), "--exp-root", str(tmp_path / "exp")]) == 2
    said = capsys.readouterr()
    assert "SYNTHIA" in said.err
    assert "missing: source SYNTHIA" in said.out
