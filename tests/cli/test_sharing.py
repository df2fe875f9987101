"""Shared models: folders with safetensors and a model card, names that load_model takes, and the hub (a stub)."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from PIL import Image

import checkpoint as checkpoint_tool
import predict as predict_script
from advent.build import build_network
from advent.checkpoints.formats import open_checkpoint
from advent.checkpoints.io import digest, is_safetensors, save, save_safetensors
from advent.config.loading import dump_config, load_config
from advent.errors import CheckpointError, ConfigError, MissingStage
from daf import Model, load_model, predict
from daf.model_card import documented_miou
from helpers import tiny_data

PHOTO = np.random.RandomState(1).randint(0, 256, (40, 70, 3)).astype(np.uint8)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """The folder of a stage, in the experiments of tmp_path: two snapshots of random weights, config and records."""
    folder = tmp_path / "experiments/quick/daf"
    overrides = [*tiny_data.NETWORK, *tiny_data.SIZES, f"DATA_ROOT={tmp_path}/data", f"EXP_ROOT={tmp_path}/experiments"]
    config = load_config("quick:daf", overrides)
    for iteration in (3, 6):
        torch.manual_seed(iteration)
        save(folder / f"model_{iteration}.pth", build_network(config).state_dict())
    (folder / "config.yml").write_text(dump_config(config))
    data = {"source": {"images": 2975, "sha256": "0"}, "target": {"images": 367, "sha256": "0"}}
    record = {
        "seed": 5,
        "code": {"version": "9.9"},
        "inputs": {"start": {"path": f"{tmp_path}/start.pth"}},
        "data": data,
    }
    (folder / "provenance.json").write_text(json.dumps({**record, "launcher": "host-7"}))
    return folder


def write_scores(stage: Path, snapshot: str, miou: float = 41.5) -> None:
    names = load_model(stage, device="cpu").classes.names
    row = {"iteration": 6, "snapshot": str(stage / snapshot), "sha256": digest(stage / snapshot), "miou": miou}
    row |= {
        "pixel_accuracy": 80.0,
        "iou": {**dict.fromkeys(names, 50.0), "human": 7.25, "sky": None},
        "selected": "last",
    }
    test = {"INPUT_SIZE_TARGET": [64, 48], "SCALES": [1.0], "FLIP": False, "SAVE_PREDS": str(stage)}
    record = {"target": "CamVid", "set": "val", "images": 101, "test": test, "results": [row]}
    (stage / "results.json").write_text(json.dumps(record))


def run_predict(source: object, image: Path, output: Path) -> int:
    return predict_script.main(
        ["--checkpoint", str(source), "--input", str(image), "--output", str(output), "--device", "cpu"]
    )


def assert_one_line(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if "error:" in line]
    assert len(lines) == 1, said
    assert "Traceback" not in said
    for word in words:
        assert word in lines[0]


def same(first: Model, second: Model) -> bool:
    ours, theirs = first.net.state_dict(), second.net.state_dict()
    return list(ours) == list(theirs) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        for a, b in zip(ours.values(), theirs.values(), strict=True)
    )


def test_a_shared_folder_is_the_same_model_bit_for_bit(stage: Path, tmp_path: Path) -> None:
    model = load_model(stage / "model_3.pth", device="cpu", size=(96, 64), geometry="pad")
    shared = model.save_pretrained(tmp_path / "shared")
    again = load_model(shared, device="cpu")
    assert same(model, again)
    assert (again.size, again.geometry, again.classes) == (model.size, "pad", model.classes)
    np.testing.assert_array_equal(predict(model, PHOTO).classes, predict(again, PHOTO).classes)
    np.testing.assert_array_equal(predict(model, PHOTO).depth, predict(again, PHOTO).depth)
    files = sorted(path.name for path in shared.iterdir())
    assert files == ["README.md", "config.yml", "model.safetensors", "provenance.json"]
    assert not [path.name for path in shared.iterdir() if str(tmp_path).encode() in path.read_bytes()]
    assert "host-7" not in (shared / "provenance.json").read_text()
    with pytest.raises(ConfigError, match="already exists"):
        model.save_pretrained(shared)
    before = {path.name: path.read_bytes() for path in shared.iterdir()}
    assert again.save_pretrained(shared, overwrite=True) == shared
    assert {path.name: path.read_bytes() for path in shared.iterdir()} == before


def test_half_precision_halves_the_weights_and_loads_as_float32(stage: Path, tmp_path: Path) -> None:
    model = load_model(stage / "model_3.pth", device="cpu")
    shared = model.save_pretrained(tmp_path / "shared", half=True)
    stored, full = open_checkpoint(shared / "model.safetensors").weights, model.net.state_dict()
    assert stored.keys() == full.keys()
    assert stored["layer6.conv2d_list.0.weight"].dtype == torch.float16
    for name in ("bn1.running_mean", "bn1.running_var", "bn1.weight", "convR2.weight"):  # statistics, the depth head
        assert stored[name].dtype == torch.float32
        assert torch.equal(stored[name], full[name])
    again = load_model(shared, device="cpu")
    for name, tensor in again.net.state_dict().items():
        assert tensor.dtype == full[name].dtype
        # 11 bits of float16: a relative error of 2 ** -11; below its normal range (6e-5) an absolute one of 2 ** -25.
        torch.testing.assert_close(tensor, full[name], rtol=2**-11, atol=2**-25)
    ours, theirs = (predict(m, PHOTO, probabilities=True) for m in (model, again))
    assert ours.probabilities is not None
    assert theirs.probabilities is not None
    assert (ours.classes == theirs.classes).mean() > 0.99
    assert 0 < np.abs(ours.probabilities - theirs.probabilities).mean() < 0.005
    assert ours.depth is not None
    assert theirs.depth is not None
    assert np.abs(ours.depth - theirs.depth).max() < 0.01 * np.abs(ours.depth).max()


def test_weights_beyond_half_precision_stay_as_they_are(stage: Path, tmp_path: Path) -> None:
    model = load_model(stage, device="cpu")
    with torch.no_grad():
        model.net.state_dict()["conv1.weight"][0, 0, 0, 0] = 1e5  # float16 ends at 65504
    stored = open_checkpoint(model.save_pretrained(tmp_path / "shared", half=True) / "model.safetensors").weights
    assert stored["conv1.weight"].dtype == torch.float32
    assert float(stored["conv1.weight"][0, 0, 0, 0]) == 1e5


def test_scores_of_the_full_weights_are_not_those_of_halved_ones(stage: Path, tmp_path: Path) -> None:
    write_scores(stage, "model_6.pth")
    shared = load_model(stage, device="cpu").save_pretrained(tmp_path / "shared", half=True)
    assert "No scores recorded." in (shared / "README.md").read_text()


def test_nan_and_negative_zero_keep_their_bits(tmp_path: Path) -> None:
    odd = {"a": torch.tensor([float("nan"), -0.0, float("inf")]), "b.num_batches_tracked": torch.tensor(7)}
    odd |= {"half": torch.ones(2, 3, dtype=torch.bfloat16).T, "shared": odd["a"]}
    save_safetensors(tmp_path / "x.safetensors", odd)
    weights = open_checkpoint(tmp_path / "x.safetensors").weights
    assert weights.keys() == odd.keys()
    for name, tensor in odd.items():
        assert (weights[name].dtype, weights[name].shape) == (tensor.dtype, tensor.shape)
        bits, expected = (x.contiguous().view(-1).view(torch.uint8) for x in (weights[name], tensor))
        assert torch.equal(bits, expected)


def test_the_card_has_data_recipe_scores_and_limits(stage: Path, tmp_path: Path) -> None:
    write_scores(stage, "model_6.pth")
    card = (load_model(stage, device="cpu").save_pretrained(tmp_path / "shared") / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: depth-guided-adaptation\n")
    for words in (
        "source images of the last stage: 2,975",
        "method: DAF",
        "seed: 5",
        "code: version 9.9",
        "initial weights: start.pth",
        "checkpoint: model_6.pth",
        "CamVid val, 101 images",
        "41.5",
        "IoU below 20 %: human (7.2).",
        "Not in the scored labels: sky.",
        "not metric on the target",
    ):
        assert words in card
    assert "No scores recorded" not in card


def test_the_card_documents_its_scores_for_the_hub(stage: Path, tmp_path: Path) -> None:
    write_scores(stage, "model_6.pth", 41.52)
    card = load_model(stage, device="cpu").save_pretrained(tmp_path / "shared") / "README.md"
    assert documented_miou(card, "CamVid") == 41.52
    assert documented_miou(card, "Cityscapes") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# A card\n",
        "---\n---\n",
        "---\nmodel-index: 3\n---\n",
        "---\na: [\n---\n",
        "---\nmodel-index: [{results: 1}]\n---\n",
    ],
)
def test_cards_without_scores_document_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert documented_miou(tmp_path / "README.md", "CamVid") is None
    assert documented_miou(tmp_path / "missing.md", "CamVid") is None


def test_a_folder_whose_card_has_no_scores_predicts(stage: Path, tmp_path: Path) -> None:
    shared = load_model(stage, device="cpu").save_pretrained(tmp_path / "shared")
    assert "No scores recorded." in (shared / "README.md").read_text()
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    assert run_predict(shared, tmp_path / "photo.png", tmp_path / "out") == 0
    assert Image.open(tmp_path / "out/classes/photo.png").size == (70, 40)
    (shared / "README.md").unlink()  # nor is the card needed at all
    assert run_predict(shared, tmp_path / "photo.png", tmp_path / "out") == 0


def test_a_config_of_the_checkpoints_own_name_comes_first(stage: Path, tmp_path: Path) -> None:
    folder = load_model(stage, device="cpu").save_pretrained(tmp_path / "shared")
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    config = load_config(folder / "config.yml")
    config.TEST.INPUT_SIZE_TARGET = [128, 96]
    (folder / "mine.yml").write_text(dump_config(config))
    assert load_model(folder / "mine.safetensors", device="cpu").size == (128, 96)


def test_scores_of_another_checkpoint_are_not_this_ones(stage: Path, tmp_path: Path) -> None:
    write_scores(stage, "model_6.pth")
    shared = load_model(stage / "model_3.pth", device="cpu").save_pretrained(tmp_path / "shared")
    assert "No scores recorded." in (shared / "README.md").read_text()
    assert "41.5" not in (shared / "README.md").read_text()
    assert not (shared / "results.json").exists()


def test_a_stage_is_loaded_by_folder_and_by_name(stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    last = load_model("experiments/quick/daf/model_6.pth", device="cpu")
    assert same(load_model(stage, device="cpu"), last)
    assert same(load_model("quick:daf", device="cpu"), last)
    with pytest.raises(MissingStage, match=r"Run: python train_isl.py --cfg quick:isl"):
        load_model("quick:isl")
    with pytest.raises(CheckpointError, match=r"pretrained/intra_trained.pth: no such checkpoint"):
        load_model("intra_trained")
    with pytest.raises(CheckpointError, match=r"no such checkpoint file or folder.*did you mean quick"):
        load_model("quik")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"neither model.safetensors nor model_N.pth"):
        load_model(tmp_path / "empty")


def test_the_checkpoint_tool_reads_and_writes_safetensors(
    stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other, back = stage / "model_6.pth", tmp_path / "x.safetensors", tmp_path / "back.pth"
    assert checkpoint_tool.main([str(first), "--to", "safetensors", "--out", str(other)]) == 0
    assert is_safetensors(other)
    assert checkpoint_tool.main([str(other), "--to", "plain", "--out", str(back)]) == 0
    assert "format     state dict, safetensors" in capsys.readouterr().out
    ours, theirs = torch.load(back, weights_only=True), torch.load(first, weights_only=True)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert checkpoint_tool.main([str(first), "--to", "safetensors", "--out", str(tmp_path / "y.pth")]) == 2
    assert_one_line(capsys, "y.pth", ".safetensors")
    assert checkpoint_tool.main([str(first), "--to", "folder", "--out", str(tmp_path / "shared")]) == 0
    assert same(load_model(tmp_path / "shared", device="cpu"), load_model(first, device="cpu"))


def test_damaged_safetensors_are_one_line(stage: Path, tmp_path: Path) -> None:
    good = save_safetensors(tmp_path / "good.safetensors", torch.load(stage / "model_6.pth")).read_bytes()
    for content in (good[:-40], good[:8] + b"{" + bytes(40), (9).to_bytes(8, "little") + b"{" * 20):
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"bad.safetensors: not a readable safetensors file"):
            open_checkpoint(tmp_path / "bad.safetensors")


def test_a_hub_name_is_downloaded_and_loaded(stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(stage, device="cpu")
    shared, asked = model.save_pretrained(tmp_path / "shared"), []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append((name, options["revision"], "model.safetensors" in options["allow_patterns"]))
        return str(shared)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert same(load_model("hf:someone/streets@v1", device="cpu"), model)
    load_model("hf:someone/streets", device="cpu")
    assert asked == [("someone/streets", "v1", True), ("someone/streets", None, True)]


class NotThere(RepositoryNotFoundError):
    def __init__(self) -> None:
        Exception.__init__(self, "404")  # the client's own has a response, of a type that differs between versions


def hub_without(name: str, **_: Any) -> str:
    raise NotThere


def hub_without_network(name: str, **_: Any) -> str:
    raise Exception("Name or service not known")  # the client's type differs between versions


@pytest.mark.parametrize(
    ("stub", "name", "words"),
    [
        (hub_without, "hf:someone/nothing", "no such model or revision"),
        (hub_without_network, "hf:someone/streets", "check the network"),
        (None, "hf:some one/streets/x", "use hf:OWNER/NAME"),
        (None, "hf:streets", "use hf:OWNER/NAME"),
        (None, "hf:", "use hf:OWNER/NAME"),
        (None, "hf:someone/streets@", "use hf:OWNER/NAME"),
        (None, "hf:someone/-streets-", "use hf:OWNER/NAME"),
    ],
)
def test_hub_errors_are_one_line(
    stub: Any,
    name: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if stub is not None:
        monkeypatch.setattr(huggingface_hub, "snapshot_download", stub)
    assert run_predict(name, tmp_path, tmp_path / "out") == 2
    assert_one_line(capsys, name, words)


def test_the_client_itself_offline_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert run_predict("hf:someone/streets", tmp_path, tmp_path / "out") == 2
    assert_one_line(capsys, "hf:someone/streets", "cannot be downloaded: HF_HUB_OFFLINE is set", "load a local folder")


def test_without_the_extra_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without_hub(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_hub)
    assert run_predict("hf:someone/streets", tmp_path, tmp_path / "out") == 2
    assert_one_line(capsys, "needs huggingface_hub", "[hub]")


def test_a_checkpoint_without_config_is_one_line(
    stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = load_model(stage, device="cpu").save_pretrained(tmp_path / "shared")
    (shared / "config.yml").unlink()
    assert run_predict(shared, tmp_path, tmp_path / "out") == 2
    assert_one_line(capsys, "no config.yml beside it", "--cfg")


def test_unreadable_pictures_are_one_line(stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    (tmp_path / "text.jpg").write_text("hello\n")
    for name, words in (("huge.png", "exceed the limit"), ("text.jpg", "cannot be read as an image")):
        assert run_predict(stage, tmp_path / name, tmp_path / "out") == 2
        assert_one_line(capsys, name, words)
    assert not (tmp_path / "out").exists()
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("huge.png", "text.jpg"):
        shutil.move(tmp_path / name, photos)
    Image.fromarray(PHOTO).save(photos / "good.png")
    assert run_predict(stage, photos, tmp_path / "out") == 1  # the others are predicted
    said = capsys.readouterr()
    assert "1 images predicted, 2 files skipped" in said.out
    assert "400,000,000 pixels exceed the limit of 128,000,000" in said.err
