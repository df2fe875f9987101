"""Inference on arbitrary images with a trained network; predictions equal those of evaluation.

from daf import load_model, predict
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar, cast, overload

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from advent.build import build_network
from advent.checkpoints.auto_precision import settle_precision
from advent.config.class_set import class_set
from advent.config.loading import load_config
from advent.config.schema import Config
from advent.config.value_types import Geometry
from advent.dataset import resize as geometries
from advent.dataset.base_dataset import network_images
from advent.dataset.classes import ClassSet
from advent.dataset.exif import turn_of
from advent.dataset.image_io import read_image
from advent.dataset.resize import GEOMETRIES, Size
from advent.errors import ConfigError, printable
from advent.evaluation.evaluate import upsample_argmax
from advent.evaluation.predictor import Crops, not_finite, refuse_not_finite, sliding_forward
from advent.methods.registry import find_network
from advent.model.outputs import resize_bilinear
from advent.model.precision import AMP_DTYPES, to_device
from advent.model.precision_probe import Passes
from advent.runtime.device import pick_device, set_tf32
from advent.utils.deprecation import deprecated_names
from advent.utils.loss import self_information
from advent.utils.viz_segmask import colorize_mask
from daf.methods import register
from daf.sharing import find_checkpoint, write_folder

log = logging.getLogger(__name__)

T = TypeVar("T")
Picture = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True)
class Model:
    """A trained network with its classes and preprocessing.

    `size`: (width, height) of the network's input; `geometry`: how images are resized to it (stretch, or keep the
    aspect and pad); `mean`: BGR, subtracted from 0..255; `amp`: off, bf16 or fp16. With a depth head (`gives_depth`)
    the network predicts inverse depth, 65536 / (centimetres + 1), on the source's scale, for any unit of the source's
    files. `crops`: sliding crops of the network's input; None predicts it at once. `checkpoint`: the file
    that was loaded.
    """

    net: nn.Module
    config: Config
    classes: ClassSet
    size: Size
    mean: tuple[float, ...]
    geometry: str
    device: torch.device
    amp: str
    gives_depth: bool
    crops: Crops | None = None
    checkpoint: Path | None = None

    def colors(self, prediction: Prediction) -> Image.Image:
        """The class map in the classes' colours, as a paletted image."""
        return colorize_mask(prediction.classes, self.classes.colors)

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False, half: bool = False) -> Path:
        """Write `model.safetensors`, `config.yml` and a model card (README.md) that `load_model(folder)` reads.

        Input size and geometry are those of this model. Provenance and scores beside the checkpoint are kept. `half`
        stores the weights in float16, except batch norms and the depth head; a network that is loaded from them is
        float32 again, and has other scores than the recorded ones, which are then left out. Raises ConfigError if the
        folder has a model, unless `overwrite`.
        """
        config = self.config.model_copy(deep=True)
        config.TEST.INPUT_SIZE_TARGET, config.GEOMETRY_TARGET = list(self.size), cast(Geometry, self.geometry)
        return write_folder(Path(folder), self.net, config, self.checkpoint, overwrite, half)


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image; all maps have the image's own height and width.

    classes: (H, W) uint8 train ids; depth: (H, W) float32 inverse depth, large is near, None if the network has no
    depth head. Optional: entropy (H, W) float32 in [0, 1]; depth_aware (H, W) float32, the paper's depth-aware map
    summed over the classes (entropy x depth at the input's size); probabilities (C, H, W) float32.
    """

    classes: np.ndarray
    depth: np.ndarray | None
    entropy: np.ndarray | None = None
    depth_aware: np.ndarray | None = None
    probabilities: np.ndarray | None = None


def load_model(
    checkpoint: str | Path | None = None,
    cfg: str | Path | None = None,
    device: str = "auto",
    *,
    amp: str | None = None,
    size: Sequence[int] | None = None,
    geometry: str | None = None,
    crop: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
) -> Model:
    """Load a trained network for inference.

    `checkpoint`: a file, a folder (of `save_pretrained`, or of a stage), `hf:OWNER/NAME`, or a config's name
    (`ep1:ida`); None: the checkpoint that is shipped with this project (pretrained/streets.md).
    Network, classes, input size, geometry and mean are read from `cfg` (a path, or a name under configs/), else from
    `NAME.yml` or `config.yml` beside the checkpoint NAME. `amp`, `size`, `geometry`, and `crop` and `stride`
    (TEST.CROP, TEST.STRIDE) override the config; sizes are (width, height). Statistics of batch norms are the
    checkpoint's.

    `amp`: off, bf16, fp16, or auto, the fastest one on this device. If it is the config that says auto, the format of
    the checkpoint's stage is kept, if that ran on the same type of device.
    Raises ConfigError, CheckpointError, MissingStage or DeviceError.
    """
    register()
    found = find_checkpoint(checkpoint, cfg)
    file = found.config
    sliding = {"TEST.CROP": crop, "TEST.STRIDE": stride}
    config = load_config(file, [f"{key}={list(value)}" for key, value in sliding.items() if value is not None])
    chosen_geometry = _known_geometry(geometry) if geometry is not None else _geometry_of(config, file)
    if amp not in (None, "auto", *AMP_DTYPES):
        raise ConfigError(f"amp: {amp!r} is none of {', '.join(AMP_DTYPES)}, auto")
    torch_device = pick_device(device)
    set_tf32(config.TRAIN.TF32)
    net = to_device(build_network(config, found.path), torch_device).eval()
    width, height = size if size is not None else config.TEST.INPUT_SIZE_TARGET
    if min(width, height) < 32:
        raise ConfigError(f"size: {width} x {height} (width, height) is too small; at least 32 x 32")
    crops = Crops.of(config.TEST.CROP, config.TEST.STRIDE)
    passes = Passes(1, config.TEST.CROP or (width, height), trains=False)
    running = config.model_copy(update={"TRAIN": config.TRAIN.model_copy(update={"AMP": amp or config.TRAIN.AMP})})
    settle_precision(running, lambda: net, torch_device, passes, start=None if amp == "auto" else found.path)
    return Model(
        net,
        config,
        class_set(config),
        (int(width), int(height)),
        tuple(config.TRAIN.IMG_MEAN),
        chosen_geometry,
        torch_device,
        running.TRAIN.precision.format,
        find_network(config).gives_depth,
        crops,
        found.path,
    )


@overload
def predict(  # type: ignore[overload-overlap]  # to a type checker a str is also a sequence of str
    model: Model, images: Picture, *, batch_size: int = 1, maps: bool = False, probabilities: bool = False
) -> Prediction: ...
@overload
def predict(
    model: Model, images: Sequence[Picture], *, batch_size: int = 1, maps: bool = False, probabilities: bool = False
) -> list[Prediction]: ...
def predict(
    model: Model,
    images: Picture | Sequence[Picture],
    *,
    batch_size: int = 1,
    maps: bool = False,
    probabilities: bool = False,
) -> Prediction | list[Prediction]:
    """Predict one image, or a sequence of them in batches; images may differ in size.

    images: files, Pillow images, or (H, W, 3) uint8 RGB arrays. `maps` adds entropy and the depth-aware map.
    Raises DataError on a file that cannot be read.
    """
    if isinstance(images, (str, Path, Image.Image, np.ndarray)):
        return predict(model, [images], maps=maps, probabilities=probabilities)[0]
    predictions: list[Prediction] = []
    for batch in in_batches(map(load_rgb, images), batch_size):
        predictions += predict_batch(model, batch, maps=maps, probabilities=probabilities)
    return predictions


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of `size` items; the last may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, max(size, 1))):
        yield batch


@torch.inference_mode()
def predict_batch(
    model: Model,
    pictures: Sequence[Image.Image],
    *,
    maps: bool = False,
    probabilities: bool = False,
    names: Sequence[str] = (),
) -> list[Prediction]:
    """One forward pass (of every crop) over RGB images of any sizes; each prediction has its image's own size.

    Raises NotFinite naming the images with infinite or NaN outputs (by `names`, else by index in the batch).
    """
    bgr = np.stack([cv2.cvtColor(_resized(model, picture), cv2.COLOR_RGB2BGR) for picture in pictures])
    mean = torch.tensor(model.mean, dtype=torch.float32, device=model.device)
    images = network_images(torch.from_numpy(bgr).to(model.device), mean)
    _, logits, depth = sliding_forward(model.net, images, AMP_DTYPES[model.amp], model.crops)
    image_names = names or [f"image {i} of the batch" for i in range(len(pictures))]
    nonfinite = not_finite(image_names, logits, depth)
    refuse_not_finite(nonfinite, "the network's logits or depth", model.amp, option="amp off")
    return [
        _at_own_size(model, picture, logits[i], None if depth is None else depth[i], maps, probabilities)
        for i, picture in enumerate(pictures)
    ]


def _at_own_size(
    model: Model, picture: Image.Image, logits: Tensor, depth: Tensor | None, maps: bool, probabilities: bool
) -> Prediction:
    width, height = picture.size
    canvas_w, canvas_h = GEOMETRIES[model.geometry].native_canvas(picture.size, model.size)

    def at(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
        return resize_bilinear(x[None], size_hw)[0]

    def own(x: Tensor) -> np.ndarray:
        return at(x, (canvas_h, canvas_w))[:, :height, :width].cpu().numpy()

    classes = upsample_argmax(logits, (canvas_h, canvas_w))[:height, :width].cpu().numpy()
    entropy = aware = None
    if maps:  # at input size, as in training and ranking; at image size they may not fit in memory
        input_hw = model.size[::-1]
        information = self_information(at(logits, input_hw).softmax(0)[None])[0].sum(0, keepdim=True)
        entropy = own(information)[0]
        aware = None if depth is None else own(information * at(depth, input_hw))[0]
    return Prediction(
        np.ascontiguousarray(classes),
        None if depth is None else own(depth)[0],
        entropy,
        aware,
        at(logits, (canvas_h, canvas_w)).softmax(0)[:, :height, :width].cpu().numpy() if probabilities else None,
    )


def load_rgb(image: Picture) -> Image.Image:
    """Load an image as RGB, rotated by its EXIF orientation. Raises DataError naming the file."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected (H, W, 3) uint8 RGB, got {image.dtype} {image.shape}")
        return Image.fromarray(image)
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    image.load()  # a PNG may store its EXIF orientation after the pixels
    turn = turn_of(image)
    if turn.damaged:
        name = printable(str(getattr(image, "filename", "") or "a picture"))
        log.warning("%s: its EXIF block is damaged; the picture is taken as it is stored, not turned", name)
    return turn.apply(image).convert("RGB")


def _resized(model: Model, picture: Image.Image) -> np.ndarray:
    return geometries.resize_image(picture, model.size, model.geometry)


def _geometry_of(config: Config, file: str | Path) -> str:
    """How images are resized to the input size: GEOMETRY_TARGET, which load_config fills from TARGET's spec."""
    if config.GEOMETRY_TARGET is not None:
        return str(config.GEOMETRY_TARGET)
    # A config.yml of an earlier version, and TARGET's spec is missing. A wrong guess would silently change predictions.
    raise ConfigError(
        f"{file}: has no GEOMETRY_TARGET (how images are resized to the input size), and the spec of its TARGET, "
        f"{config.TARGET}, is not found; add GEOMETRY_TARGET: stretch (or pad, as in the spec), or give --geometry"
    )


def _known_geometry(name: str) -> str:
    if name not in GEOMETRIES:
        raise ConfigError(f"geometry: {name!r} is none of {', '.join(GEOMETRIES)}")
    return name


__getattr__ = deprecated_names(__name__, {"upright": "load_rgb"})
