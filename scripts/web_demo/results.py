"""What the demo page shows of a prediction: pictures, videos, legend with shares. No Gradio here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from advent.dataset.classes import ClassSet
from daf.inference import Model, predict_batch
from daf.visualization import OutputOptions, Renderer
from web_demo.uploads import Video

VIDEO_SIDE = 640  # pixels of the longer side of the result's videos
CODEC, SUFFIX = "VP80", ".webm"  # written by OpenCV's own FFmpeg, played by every browser
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Share:
    """A class with its RGB colour and its share of the pixels, 0 to 1."""

    name: str
    color: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class Result:
    """Pictures of one image, or of a video's middle frame; `depth` is None if the network predicts none.

    `videos`: product (overlay, depth_color, entropy) -> file; empty for an image. `mean_entropy` and `shares` are over
    all predicted frames, `shares` in descending order. `seconds`: time of the prediction.
    """

    photo: Image.Image
    overlay: Image.Image
    depth: Image.Image | None
    entropy: Image.Image
    mean_entropy: float
    shares: list[Share]
    seconds: float
    videos: dict[str, Path] = field(default_factory=dict)


def class_shares(classes: Sequence[np.ndarray], class_set: ClassSet) -> list[Share]:
    """Shares of the pixels of all class maps (H, W), train ids; largest first, equal ones in the order of the ids."""
    counts = np.zeros(len(class_set.names), np.int64)
    for ids in classes:
        counts += np.bincount(ids.ravel(), minlength=len(counts))
    order = np.argsort(-counts, kind="stable")
    total = max(int(counts.sum()), 1)
    return [Share(class_set.names[i], tuple(class_set.colors[i]), float(counts[i]) / total) for i in order]


def predict_picture(model: Model, photo: Image.Image) -> Result:
    """Predict one RGB image."""
    return _predict(model, [photo], Renderer(model, _options(), with_legend=False))


def predict_video(model: Model, video: Video, folder: Path, progress: Progress) -> Result:
    """Predict the frames of a video and write the results as videos into `folder`, with the video's own duration.

    `progress` is called with the number of predicted frames and of all frames.
    """
    renderer = Renderer(model, _options(), video=True, with_legend=False)
    return _predict(model, video.frames, renderer, VideoFiles(folder, video.rate), progress)


def _options() -> OutputOptions:
    return OutputOptions(depth=True, entropy=True)


def _predict(
    model: Model,
    frames: Sequence[Image.Image],
    renderer: Renderer,
    videos: VideoFiles | None = None,
    progress: Progress = lambda done, total: None,
) -> Result:
    start = time.perf_counter()
    classes: list[np.ndarray] = []
    entropies: list[float] = []
    middle: dict[str, Image.Image] = {}
    for index, frame in enumerate(frames):
        (prediction,) = predict_batch(model, [frame], maps=True, names=[f"frame {index}"])
        assert prediction.entropy is not None
        classes.append(prediction.classes)
        entropies.append(float(prediction.entropy.mean()))
        pictures = dict(renderer.pictures(frame, prediction))
        if videos is not None:
            videos.write(pictures)
        if index == len(frames) // 2:
            middle = {"photo": frame, **pictures}
        progress(index + 1, len(frames))
    return Result(
        middle["photo"],
        middle["overlay"],
        middle.get("depth_color"),
        middle["entropy"],
        float(np.mean(entropies)),
        class_shares(classes, model.classes),
        time.perf_counter() - start,
        videos.close() if videos is not None else {},
    )


class VideoFiles:
    """Videos of the products, one file each, no side longer than VIDEO_SIDE. `rate`: frames per second."""

    def __init__(self, folder: Path, rate: float) -> None:
        self.folder, self.rate = folder, rate
        self._writers: dict[str, tuple[cv2.VideoWriter, tuple[int, int]]] = {}

    def write(self, pictures: dict[str, Image.Image]) -> None:
        """Add a frame of every product except the plain class colours. Raises OSError if OpenCV cannot write."""
        for product, picture in pictures.items():
            if product == "color":
                continue
            if product not in self._writers:
                self._writers[product] = self._open(product, picture.size)
            writer, size = self._writers[product]
            rgb = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX))
            writer.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))

    def close(self) -> dict[str, Path]:
        """Finish the files; returns product -> file."""
        for writer, _ in self._writers.values():
            writer.release()
        return {product: self._path(product) for product in self._writers}

    def _path(self, product: str) -> Path:
        return self.folder / f"{product}{SUFFIX}"

    def _open(self, product: str, size_wh: tuple[int, int]) -> tuple[cv2.VideoWriter, tuple[int, int]]:
        scale = min(VIDEO_SIDE / max(size_wh), 1.0)
        width, height = (max(round(side * scale / 2), 1) * 2 for side in size_wh)  # the codec needs even sides
        code = cv2.VideoWriter.fourcc(*CODEC)
        writer = cv2.VideoWriter(str(self._path(product)), cv2.CAP_FFMPEG, code, self.rate, (width, height))
        if not writer.isOpened():
            raise OSError(None, "OpenCV cannot write this video", str(self._path(product)))
        return writer, (width, height)


def legend_html(shares: Sequence[Share]) -> str:
    """Table of the classes that occur: colour, name, share of the pixels. The others are named below it."""
    rows = [
        f'<tr><td><span class="swatch" style="background: rgb{share.color[:3]}"></span></td>'
        f'<th scope="row">{escape(share.name)}</th><td class="bar"><span style="width: {100 * share.value:.1f}%; '
        f'background: rgb{share.color[:3]}"></span></td><td class="share">{percent(share.value)}</td></tr>'
        for share in shares
        if share.value > 0
    ]
    absent = ", ".join(escape(share.name) for share in shares if share.value == 0)
    rest = f'<p class="absent">Not found: {absent}</p>' if absent else ""
    return (
        '<table class="legend"><caption>Classes and their share of the pixels</caption>'
        f"<tbody>{''.join(rows)}</tbody></table>{rest}"
    )


def percent(share: float) -> str:
    """A share in percent with one decimal; a share below 0.05 % is not shown as 0."""
    return "< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def line_html(text: str, error: bool = False) -> str:
    """One line of the page; errors are announced by screen readers."""
    role, kind = ("alert", "line error") if error else ("status", "line")
    return f'<p class="{kind}" role="{role}">{escape(text)}</p>'
