"""Demo page without Gradio: which checkpoints are offered, limits of uploads, results, errors in one line."""

from __future__ import annotations

import shutil
import socket
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from advent.config.loading import dump_config, load_config
from advent.errors import CheckpointError, DataError
from daf import load_model, predict
from helpers import tiny_data
from helpers.tiny_checkpoint import write_stage
from web_demo import uploads
from web_demo.checkpoints import Choice, find_choices
from web_demo.predictor import Predictor
from web_demo.results import Share, class_shares, legend_html, line_html, percent
from web_demo.uploads import LARGEST_FILE, LONGEST_VIDEO, MOST_FRAMES, check_size, is_video, read_picture, read_video


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a stage with a tiny random network; read-only."""
    folder = tmp_path_factory.mktemp("demo") / "experiments/quick/daf"
    write_stage(folder)
    return folder


@pytest.fixture(scope="module")
def predictor(stage: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    choice = Choice("tiny", stage / "model_6.pth", stage / "config.yml")
    return Predictor([choice], tmp_path_factory.mktemp("videos"), "cpu")


def write_video(path: Path, frames: int, rate: float = 10.0, size: tuple[int, int] = (64, 48)) -> Path:
    """Frame i is grey with brightness 10 i (modulo 250)."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), 10 * index % 250, np.uint8))
    writer.release()
    return path


def huge_png(path: Path, side: int = 20_000) -> Path:
    """A PNG that declares side x side pixels and has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    return path


# Checkpoints


def names_below(*folders: Path) -> list[str]:
    return [Path(choice.name).name for choice in find_choices(folders)]


def test_a_stage_is_offered_by_its_last_snapshot(stage: Path, tmp_path: Path) -> None:
    shutil.copytree(stage, tmp_path / "run/daf")
    shutil.copy(tmp_path / "run/daf/model_6.pth", tmp_path / "run/daf/model_20.pth")
    (tmp_path / "run/daf/resume.pth").write_bytes(b"state")
    (choice,) = find_choices([tmp_path])
    assert (choice.checkpoint.name, choice.config.name) == ("model_20.pth", "config.yml")
    assert choice.name.endswith("run/daf")


def test_a_shared_folder_and_a_file_with_its_own_config_are_offered(stage: Path, tmp_path: Path) -> None:
    """`streets.safetensors` with `streets.yml`, as in pretrained/, and a folder of `save_pretrained`."""
    model = load_model(stage, device="cpu")
    shared = model.save_pretrained(tmp_path / "shared")
    (tmp_path / "pretrained").mkdir()
    shutil.copy(shared / "model.safetensors", tmp_path / "pretrained/streets.safetensors")
    (tmp_path / "pretrained/streets.yml").write_text(dump_config(load_config(shared / "config.yml")))
    assert names_below(tmp_path / "pretrained", tmp_path / "shared") == ["streets.safetensors", "shared"]
    photo = np.random.RandomState(0).randint(0, 256, (48, 64, 3)).astype(np.uint8)
    expected = predict(model, photo).classes
    for choice in find_choices([tmp_path]):
        loaded = load_model(choice.checkpoint, choice.config, "cpu")
        np.testing.assert_array_equal(predict(loaded, photo).classes, expected)


def test_weights_without_a_config_are_not_offered(stage: Path, tmp_path: Path) -> None:
    shutil.copy(stage / "model_6.pth", tmp_path / "model_6.pth")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*; train one: bash scripts/quickstart.sh"):
        find_choices([tmp_path, tmp_path / "missing"])


# Uploads


def test_files_above_the_limit_and_empty_files_are_refused() -> None:
    check_size("photo.jpg", LARGEST_FILE)
    with pytest.raises(DataError, match=r"photo.jpg: 101 MB exceed the limit of 100 MB"):
        check_size("photo.jpg", LARGEST_FILE + 2**20)
    with pytest.raises(DataError, match="the file is empty"):
        check_size("photo.jpg", 0)


def test_the_suffix_tells_images_from_videos() -> None:
    assert is_video(Path("drive.MP4"))
    assert not is_video(Path("photo.HEIC"))
    with pytest.raises(DataError, match="neither an image nor a video"):
        is_video(Path("notes.txt"))


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(DataError, match=r"huge.png: .* pixels exceed the limit of 128,000,000"):
        read_picture(huge_png(tmp_path / "huge.png"))


def test_large_pictures_are_scaled_down_with_their_aspect_ratio(tmp_path: Path) -> None:
    Image.new("RGB", (4096, 1024), "red").save(tmp_path / "wide.png")
    assert read_picture(tmp_path / "wide.png").size == (2048, 512)
    Image.new("RGB", (300, 200)).save(tmp_path / "small.png")
    assert read_picture(tmp_path / "small.png").size == (300, 200)


def test_frames_are_evenly_spaced_over_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_FRAMES", 5)
    video = read_video(write_video(tmp_path / "drive.mp4", frames=20))
    brightness = [float(np.asarray(frame).mean()) for frame in video.frames]
    np.testing.assert_allclose(brightness, [0, 40, 80, 120, 160], atol=6)  # every fourth frame; lossy codec
    assert video.rate == pytest.approx(2.5)  # the result lasts as long as the video
    assert video.seconds == pytest.approx(2.0)


def test_every_frame_of_a_short_video_is_predicted(tmp_path: Path) -> None:
    video = read_video(write_video(tmp_path / "drive.mp4", frames=7))
    assert len(video.frames) == 7
    assert video.rate == pytest.approx(10)


def test_a_long_video_is_refused(tmp_path: Path) -> None:
    file = write_video(tmp_path / "drive.mp4", frames=2 * LONGEST_VIDEO + 2, rate=2.0, size=(16, 16))
    with pytest.raises(DataError, match=f"drive.mp4: the video is longer than {LONGEST_VIDEO} seconds; cut it first"):
        read_video(file)


def test_a_video_whose_container_declares_no_length_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As recordings of browsers: the header has no number of frames."""
    file = write_video(tmp_path / "drive.mp4", frames=100)

    capture_class = cv2.VideoCapture

    class Undeclared:
        def __init__(self, *arguments: object) -> None:
            self.capture = capture_class(*arguments)  # type: ignore[call-overload]

        def __getattr__(self, name: str) -> object:
            return getattr(self.capture, name)

        def get(self, key: int) -> float:
            return 0.0 if key == cv2.CAP_PROP_FRAME_COUNT else self.capture.get(key)

    monkeypatch.setattr(cv2, "VideoCapture", Undeclared)
    video = read_video(file)
    assert len(video.frames) <= MOST_FRAMES
    assert video.seconds == pytest.approx(10)
    monkeypatch.setattr(uploads, "LONGEST_VIDEO", 9)
    with pytest.raises(DataError, match="longer than 9 seconds"):
        read_video(file)


def test_a_playlist_named_as_a_video_requests_nothing(tmp_path: Path) -> None:
    """FFmpeg must not open the address inside an uploaded file."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        for text in (
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9.0,\n{address}\n#EXT-X-ENDLIST\n",
            f"ffconcat version 1.0\nfile '{address}'\n",
        ):
            (tmp_path / "drive.mp4").write_text(text)
            with pytest.raises(DataError, match="no video frame can be read"):
                read_video(tmp_path / "drive.mp4")
        with pytest.raises(TimeoutError):
            server.accept()


# Results


def test_shares_are_those_of_the_pixels_in_descending_order(predictor: Predictor) -> None:
    classes = predictor.model("tiny").classes
    first, second = np.zeros((2, 5), np.uint8), np.full((2, 5), 3, np.uint8)
    second[0, 0] = 1
    shares = class_shares([first, second, second], classes)
    assert [(share.name, share.value) for share in shares[:3]] == [
        (classes.names[3], pytest.approx(18 / 30)),
        (classes.names[0], pytest.approx(10 / 30)),
        (classes.names[1], pytest.approx(2 / 30)),
    ]
    assert shares[0].color == tuple(classes.colors[3])
    assert len(shares) == len(classes)
    assert sum(share.value for share in shares) == pytest.approx(1)


def test_the_legend_shows_colour_name_and_share_and_names_missing_classes_apart() -> None:
    page = legend_html(
        [Share("road <b>", (128, 64, 128), 0.75), Share("pole", (1, 2, 3), 0.0002), Share("sky", (0, 0, 0), 0)]
    )
    table, rest = page.split("</table>")
    assert "rgb(128, 64, 128)" in table
    assert "road &lt;b&gt;" in table
    assert "75.0 %" in table
    assert "&lt; 0.1 %" in table or "< 0.1 %" in table
    assert "sky" not in table
    assert "Not found: sky" in rest


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100.0 %"), (0.1234, "12.3 %"), (0.0004, "< 0.1 %"), (0.001, "0.1 %")]
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_lines_are_escaped_and_errors_are_announced() -> None:
    assert line_html("<script>.jpg", error=True) == '<p class="line error" role="alert">&lt;script&gt;.jpg</p>'
    assert 'role="status"' in line_html("done")


def test_a_picture_has_the_classes_that_predict_gives(predictor: Predictor, stage: Path, tmp_path: Path) -> None:
    file = tmp_path / "straße im März.png"
    Image.fromarray(tiny_data.picture(1, 1)[0]).resize((150, 90)).save(file)
    answer = predictor.answer(file, "tiny")
    result = answer.result
    assert result is not None
    assert answer.line.startswith("straße im März.png: 150 x 90 pixels; predicted in ")
    assert answer.line.endswith(" on cpu by tiny")
    model = load_model(stage, device="cpu")
    prediction = predict(model, file, maps=True)
    assert result.shares == class_shares([prediction.classes], model.classes)
    colors = np.asarray(model.colors(prediction).convert("RGB"), np.float64)
    expected = 0.45 * np.asarray(Image.open(file), np.float64) + 0.55 * colors
    np.testing.assert_allclose(np.asarray(result.overlay, np.float64), expected, atol=1)
    assert prediction.entropy is not None
    assert result.mean_entropy == pytest.approx(float(prediction.entropy.mean()))
    assert result.depth is not None
    assert result.photo.size == result.overlay.size == result.depth.size == result.entropy.size == (150, 90)
    assert result.videos == {}


def test_a_network_without_depth_has_no_depth_picture(tmp_path: Path) -> None:
    checkpoint = write_stage(tmp_path / "stage", "gta5:advent")
    file = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "gray").save(file)
    predictor = Predictor([Choice("advent", checkpoint, checkpoint.parent / "config.yml")], tmp_path, "cpu")
    result = predictor.answer(file, "advent").result
    assert result is not None
    assert result.depth is None


def test_a_video_becomes_videos_of_the_same_duration(predictor: Predictor, tmp_path: Path) -> None:
    file = write_video(tmp_path / "drive.mp4", frames=6, rate=10.0, size=(100, 70))
    calls: list[tuple[int, int]] = []
    answer = predictor.answer(file, "tiny", lambda done, total: calls.append((done, total)))
    assert "6 frames of 0.6 s" in answer.line
    assert calls == [(index, 6) for index in range(1, 7)]
    assert answer.result is not None
    assert set(answer.result.videos) == {"overlay", "depth_color", "entropy"}
    for path in answer.result.videos.values():
        capture = cv2.VideoCapture(str(path))
        assert path.suffix == ".webm"
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
        frames = 0
        while (read := capture.read())[0]:
            assert read[1].shape == (70, 100, 3)
            frames += 1
        assert frames == 6


# Errors: one line each, with the uploaded file's name and without its folder


def line_of(predictor: Predictor, file: Path, choice: str = "tiny") -> str:
    answer = predictor.answer(file, choice)
    assert answer.result is None
    assert "\n" not in answer.line
    assert str(file.parent) not in answer.line
    return answer.line


def test_unreadable_uploads_are_refused_in_one_line(predictor: Predictor, tmp_path: Path) -> None:
    text = tmp_path / "photo.jpg"
    text.write_text("not a photograph")
    assert line_of(predictor, text).startswith("photo.jpg: cannot be read as an image (unknown format)")
    video = tmp_path / "drive.mp4"
    video.write_bytes(write_video(tmp_path / "whole.mp4", frames=5).read_bytes()[:200])
    assert line_of(predictor, video).startswith("drive.mp4: no video frame can be read")
    empty = tmp_path / "empty.png"
    empty.touch()
    assert line_of(predictor, empty).startswith("empty.png: the file is empty")
    assert "128,000,000" in line_of(predictor, huge_png(tmp_path / "huge.png"))
    assert line_of(predictor, tmp_path / "gone.png").startswith("gone.png: No such file")


def test_an_unreadable_checkpoint_is_refused_in_one_line_and_another_one_still_works(
    stage: Path, predictor: Predictor, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes((stage / "model_6.pth").read_bytes()[:1000])
    choices = [Choice("broken", broken, stage / "config.yml"), *predictor.choices.values()]
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 48)).save(photo)
    both = Predictor(choices, tmp_path, "cpu")
    answer = both.answer(photo, "broken")
    assert answer.result is None
    assert "broken.pth: not a readable PyTorch checkpoint" in answer.line
    assert both.answer(photo, "tiny").result is not None
    assert both.answer(photo, "other").line.startswith("'other' is not among the checkpoints")
