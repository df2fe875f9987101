"""Inference with scripts/predict.py and `daf.predict`: results equal evaluation; images, folders and videos."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import predict as predict_script
import test as test_script
import train
from advent.config.loading import dump_config, load_config
from daf import Model, load_model, predict, predict_files
from daf.visualization import OutputOptions
from helpers import tiny_data

ROOT = Path(__file__).parents[2]
CLASSES = 7


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Path:
    return trained / "exp/quick/daf/model_6.pth"


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    return load_model(checkpoint, device="cpu")


def run_predict(checkpoint: Path, source: Path, output: Path, *options: str) -> int:
    return predict_script.main(
        ["--checkpoint", str(checkpoint), "--input", str(source), "--output", str(output), "--device", "cpu", *options]
    )


def photo(width: int, height: int, seed: int = 1) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def save_video(path: Path, frames: int = 5, size: tuple[int, int] = (64, 48)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, size)
    for index in range(frames):
        writer.write(photo(*size, seed=index))
    writer.release()
    return path


def test_class_map_equals_evaluation(trained: Path, checkpoint: Path, model: Model, tmp_path: Path) -> None:
    official = tmp_path / "official"
    options = [
        "TEST.MODE=single",
        f"TEST.RESTORE_FROM={checkpoint}",
        f"TEST.SAVE_PREDS={official}",
        f"EXP_ROOT={tmp_path}",
    ]
    assert test_script.main(tiny_data.command_line(trained, "quick:daf", *options)) == 0
    # CamVid's first label id of each of the 7 classes, from configs/datasets/camvid.yml.
    ids = np.array([3, 1, 2, 5, 0, 9, 8], np.uint8)
    files = sorted((trained / "CamVid/val").glob("*.png"))
    assert len(files) == tiny_data.COUNT
    for file, prediction in zip(files, predict(model, files, batch_size=3), strict=True):
        expected = np.asarray(Image.open(official / "labelIds" / f"{file.stem}_pred_labelIds.png"))
        np.testing.assert_array_equal(ids[prediction.classes], expected)


def test_exif_orientation_is_applied_as_in_evaluation(checkpoint: Path, model: Model, data: Path) -> None:
    """`test.py --no-labels --save-preds` writes the upright image's size and the same classes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    shutil.rmtree(data / "CamVid/valannot")
    files = sorted((data / "CamVid/val").glob("*.png"))[:2]
    for file in (data / "CamVid/val").glob("*.png"):
        Image.open(file).save(file, exif=exif) if file in files else file.unlink()
    line = tiny_data.command_line(data, "quick:daf", "TEST.MODE=single", f"TEST.RESTORE_FROM={checkpoint}")
    assert test_script.main([*line, "--no-labels", "--save-preds", str(data / "official")]) == 0
    ids = np.array([3, 1, 2, 5, 0, 9, 8], np.uint8)
    for file in files:
        expected = np.asarray(Image.open(data / "official/labelIds" / f"{file.stem}_pred_labelIds.png"))
        assert expected.shape == (tiny_data.WIDTH, tiny_data.HEIGHT)
        np.testing.assert_array_equal(ids[predict(model, file).classes], expected)


def test_outputs_have_the_native_image_size(model: Model) -> None:
    for width, height in ((64, 48), (301, 50), (33, 200), (1, 1)):
        prediction = predict(model, photo(width, height), maps=True, probabilities=True)
        assert prediction.classes.shape == (height, width)
        assert prediction.classes.dtype == np.uint8
        assert prediction.depth is not None
        assert prediction.entropy is not None
        assert prediction.depth_aware is not None
        assert prediction.probabilities is not None
        assert prediction.depth.shape == prediction.entropy.shape == prediction.depth_aware.shape == (height, width)
        assert prediction.probabilities.shape == (CLASSES, height, width)
        np.testing.assert_allclose(prediction.probabilities.sum(0), 1, rtol=1e-5)
        assert 0 <= prediction.entropy.min() <= prediction.entropy.max() <= 1 + 1e-6


def test_maps_at_input_size_equal_the_papers_formula(model: Model) -> None:
    from daf.interaction import depth_aware_map

    prediction = predict(model, photo(*model.size), maps=True, probabilities=True)
    assert prediction.probabilities is not None
    assert prediction.depth is not None
    logits, depth = (
        torch.from_numpy(prediction.probabilities).log()[None],
        torch.from_numpy(prediction.depth)[None, None],
    )
    expected = depth_aware_map(logits, depth)[0].sum(0).numpy()
    np.testing.assert_allclose(prediction.depth_aware, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(prediction.classes, prediction.probabilities.argmax(0))


def test_padding_keeps_the_aspect_and_is_cut_off(checkpoint: Path) -> None:
    padded = load_model(checkpoint, device="cpu", geometry="pad", size=(96, 48))
    prediction = predict(padded, photo(40, 80))
    assert prediction.classes.shape == (80, 40)


@pytest.fixture
def padding_target(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoint of a target with geometry `pad`; its spec's path is relative to another working directory."""
    spec = tmp_path / "there/mine.yml"
    spec.parent.mkdir()
    spec.write_text("base: camvid\nname: Mine\nfolder: mine\ngeometry: pad\n")
    monkeypatch.chdir(spec.parent)
    config = load_config(checkpoint.parent / "config.yml", ["TARGET=./mine.yml"])
    beside = Path(shutil.copy(checkpoint, tmp_path / "model_6.pth"))
    (tmp_path / "config.yml").write_text(dump_config(config))
    monkeypatch.chdir(tmp_path)
    return beside


def test_geometry_is_read_from_the_checkpoints_config(checkpoint: Path, padding_target: Path) -> None:
    image = photo(40, 80)
    probabilities_of_config = predict(load_model(padding_target, device="cpu"), image, probabilities=True).probabilities
    padded, stretched = (
        predict(load_model(checkpoint, device="cpu", geometry=name), image, probabilities=True).probabilities
        for name in ("pad", "stretch")
    )
    assert probabilities_of_config is not None
    assert padded is not None
    np.testing.assert_array_equal(probabilities_of_config, padded)
    assert not np.array_equal(probabilities_of_config, stretched)


def test_old_config_takes_geometry_from_the_spec_or_is_refused(
    checkpoint: Path, padding_target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "config.yml"
    text = "".join(ln for ln in written.read_text().splitlines(True) if not ln.startswith("GEOMETRY_TARGET"))
    written.write_text(text)
    tiny_data.write_png(tmp_path / "photos/a.png", photo(40, 80))
    assert run_predict(padding_target, tmp_path / "photos", tmp_path / "out") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "GEOMETRY_TARGET" in line]
    assert len(said) == 1
    assert all(words in said[0] for words in ("config.yml", "./mine.yml", "--geometry"))
    assert not (tmp_path / "out").exists()
    assert load_model(padding_target, device="cpu", geometry="pad").geometry == "pad"
    written.write_text(text.replace("./mine.yml", str(tmp_path / "there/mine.yml")))
    assert load_model(padding_target, device="cpu").geometry == "pad"


def test_batch_equals_single_images(model: Model) -> None:
    images = [photo(64, 48, 1), photo(100, 30, 2), photo(20, 90, 3)]
    for batched, single in zip(predict(model, images, batch_size=3), predict(model, images), strict=True):
        assert (batched.classes == single.classes).mean() > 0.99  # rounding may decide between two equal classes
        np.testing.assert_allclose(batched.depth, single.depth, rtol=1e-3, atol=1e-3)


def test_a_folder_with_an_unreadable_file(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "photos"
    for name, size in (("a.png", (64, 48)), ("deep/b.jpg", (90, 40)), ("deep/b.png", (30, 30))):
        tiny_data.write_png(source / name, photo(*size))
    (source / "broken.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert run_predict(checkpoint, source, out, "--entropy", "--map", "--batch-size", "2") == 1
    said = capsys.readouterr()
    assert "broken.jpg" in said.err + said.out
    assert "3 images predicted, 1 files skipped" in said.out
    for key, (width, height) in (("a", (64, 48)), ("deep/b.jpg", (90, 40)), ("deep/b.png", (30, 30))):
        for product in ("classes", "color", "depth", "depth_color", "entropy", "map"):
            assert Image.open(out / product / f"{key}.png").size == (width, height), product
        assert Image.open(out / "overlay" / f"{key}.jpg").height > height  # the legend is below the image
        assert np.load(out / "entropy" / f"{key}.npy").shape == (height, width)
        assert np.asarray(Image.open(out / "classes" / f"{key}.png")).max() < CLASSES
        assert cv2.imread(str(out / "depth" / f"{key}.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert (out / "classes.csv").read_text().splitlines()[1] == "0,flat,128,64,128"
    assert not list(out.rglob("*.tmp"))


def test_damaged_exif_does_not_end_a_folder(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Files with damaged EXIF are predicted as stored, with a warning that names the file; other files follow."""
    random = np.random.RandomState(5)
    source = tmp_path / "photos"
    source.mkdir()
    blocks = [b"no exif at all", b"II*\0\x08\0\0\0\x05\0cut", *[random.bytes(n) for n in (1, 7, 30, 200)]]
    for index, block in enumerate(blocks):
        suffix = ("jpg", "png", "webp")[index % 3]
        Image.fromarray(photo(64, 48)).save(source / f"bad{index}.{suffix}", exif=b"Exif\0\0" + block)
    tiny_data.write_png(source / "whole.png", photo(64, 48))
    assert run_predict(checkpoint, source, tmp_path / "out", "--no-depth") == 0
    assert f"{len(blocks) + 1} images predicted, 0 files skipped" in capsys.readouterr().out
    for index in range(len(blocks)):
        assert Image.open(tmp_path / f"out/classes/bad{index}.png").size == (64, 48)
        (line,) = [record.getMessage() for record in caplog.records if f"bad{index}." in record.getMessage()]
        assert "its EXIF block is damaged" in line


def test_readable_formats_are_predicted_and_others_reported(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing HEIC package is simulated, so that the test also works where it is installed."""
    monkeypatch.setattr("advent.dataset.image_io.has_heif", lambda: False)
    monkeypatch.setattr("advent.dataset.image_io.decoded_formats", lambda: ("PNG", "JPEG", "GIF", "JPEG2000", "AVIF"))
    source = tmp_path / "photos"
    source.mkdir()
    kinds = {"a.gif": "GIF", "b.jp2": "JPEG2000", "c.jfif": "JPEG", "d.mpo": "MPO"}
    kinds |= {"e.AVIF": "AVIF"} if "AVIF" in Image.SAVE else {}
    for name, kind in kinds.items():
        Image.fromarray(photo(64, 48)).save(source / name, kind)
    (source / "f.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    Image.fromarray(photo(16, 12)).save(source / "g.dng", "TIFF")  # a raw file contains a TIFF thumbnail
    for name in ("notes.txt", "deep/more.txt", "no_suffix"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("x")
    assert run_predict(checkpoint, source, tmp_path / "out", "--no-depth") == 1
    said = capsys.readouterr()
    assert f"{len(kinds)} images predicted, 2 files skipped" in said.out
    assert "f.heic: HEIC needs the package pillow-heif" in said.err
    assert "g.dng: camera raw files are not supported" in said.err
    left_out = "(2 .txt, 1 no suffix): deep/more.txt, no_suffix, notes.txt"
    assert f"predict.py: ignored, neither image nor video by file extension {left_out}" in said.err
    for name in kinds:
        assert Image.open(tmp_path / f"out/classes/{name[0]}.png").size == (64, 48)
    for name in ("f.heic", "g.dng"):
        (source / name).unlink()
    assert run_predict(checkpoint, source, tmp_path / "out", "--no-depth") == 0  # a text file is not an error
    assert "notes.txt" in capsys.readouterr().err


@pytest.mark.timeout(60)
def test_output_names_of_a_hundred_thousand_frames_are_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairwise comparison of the names took minutes; no files are created here."""
    names = [f"{index:06d}.{'png' if index % 2 else 'jpg'}" for index in range(100_000)]
    monkeypatch.setattr(predict_files, "walk", lambda folder: names)
    keys, others = predict_files._keys(tmp_path, tmp_path / "out")
    assert (len(keys), others) == (100_000, [])
    predict_files._refuse_to_overwrite(keys, tmp_path / "out", OutputOptions(depth=True))


def test_output_replaces_a_link_to_an_input(checkpoint: Path, tmp_path: Path) -> None:
    """An output file replaces the link; the link's target is unchanged."""
    tiny_data.write_png(tmp_path / "photos/a.png", photo(64, 48))
    before = (tmp_path / "photos/a.png").read_bytes()
    (tmp_path / "out/classes").mkdir(parents=True)
    (tmp_path / "out/classes/a.png").symlink_to(tmp_path / "photos/a.png")
    assert run_predict(checkpoint, tmp_path / "photos", tmp_path / "out", "--no-depth") == 0
    assert (tmp_path / "photos/a.png").read_bytes() == before
    assert np.asarray(Image.open(tmp_path / "out/classes/a.png")).max() < CLASSES


def test_a_video_becomes_videos(checkpoint: Path, tmp_path: Path) -> None:
    video = save_video(tmp_path / "drive.mp4")
    assert run_predict(checkpoint, video, tmp_path / "out", "--batch-size", "2", "--frames") == 0
    for product in ("color", "overlay", "depth_color"):
        capture = cv2.VideoCapture(str(tmp_path / "out" / product / "drive.mp4"))
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert len(list((tmp_path / "out/classes/drive").glob("*.png"))) == 5
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert run_predict(checkpoint, tmp_path / "broken.mp4", tmp_path / "out2") == 2


def test_a_network_without_depth(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = tiny_data.command_line(data, "quick:daf", "TRAIN.DA_METHOD=MinEnt", "MODEL.NAME=DeepLabv2")
    assert train.main(line) == 0
    checkpoint = data / "exp/quick/daf/model_3.pth"
    assert predict(load_model(checkpoint, device="cpu"), photo(64, 48), maps=True).depth_aware is None
    assert run_predict(checkpoint, data / "CamVid/val/0000.png", tmp_path / "out", "--entropy") == 0
    assert not (tmp_path / "out/depth").exists()
    for flag in ("--depth", "--map"):
        assert run_predict(checkpoint, data / "CamVid/val/0000.png", tmp_path / "out", flag) == 2
        assert flag in capsys.readouterr().err


def test_mistakes_are_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    tiny_data.write_png(tmp_path / "photos/classes/a.png", photo(64, 48))
    lonely = tmp_path / "lonely.pth"
    shutil.copy(checkpoint, lonely)
    before = (tmp_path / "photos/classes/a.png").read_bytes()
    for arguments, words in (
        ((checkpoint, tmp_path / "nothing", tmp_path / "out"), "no such image, folder or video"),
        ((checkpoint, tmp_path / "empty", tmp_path / "out"), "contains no image or video"),
        ((checkpoint, tmp_path / "photos", tmp_path / "photos"), "is the input folder"),
        ((checkpoint, tmp_path / "photos/classes", tmp_path / "photos"), "would be overwritten"),
        ((lonely, tmp_path / "photos", tmp_path / "out"), "--cfg"),
        ((tmp_path / "none.pth", tmp_path / "photos", tmp_path / "out", "--cfg", "quick:daf"), "no such checkpoint"),
        ((checkpoint, tmp_path / "photos", tmp_path / "out", "--batch-size", "0"), "--batch-size"),
    ):
        capsys.readouterr()
        assert run_predict(*arguments) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert words in said[-1]
        assert not any("Traceback" in line for line in said)
    assert (tmp_path / "photos/classes/a.png").read_bytes() == before


def test_the_five_lines_of_readme(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = [text for text in blocks if "from daf import load_model, predict" in text]
    assert len([line for line in block.splitlines() if line.strip()]) == 5
    named = re.findall(r'"([^"]+)"', block)
    (weights,) = [name for name in named if name.endswith(".pth")]
    (image,) = [name for name in named if name.endswith(".jpg")]
    (tmp_path / weights).parent.mkdir(parents=True)
    shutil.copy(trained / "exp/quick/daf/model_6.pth", tmp_path / weights)
    shutil.copy(trained / "exp/quick/daf/config.yml", (tmp_path / weights).parent)
    tiny_data.write_png(tmp_path / image, photo(80, 60))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    (output,) = [name for name in named if name.endswith(".png")]
    assert Image.open(tmp_path / output).size == (80, 60)
