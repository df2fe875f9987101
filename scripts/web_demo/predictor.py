"""Answers to uploads: a result, or an error in one line. No Gradio here."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from advent.errors import ConfigError, UserError, first_line, hint, printable
from daf.inference import Model, load_model
from web_demo.checkpoints import Choice, shown
from web_demo.results import Progress, Result, predict_picture, predict_video
from web_demo.uploads import check_size, is_video, read_picture, read_video

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """One line of text, and the result; None if the line is an error."""

    line: str
    result: Result | None = None


class Predictor:
    """Predicts uploaded files with one of `choices`; the network that was used last stays loaded.

    Result videos are written into new folders below `folder`. `device`: auto, cpu, cuda, cuda:N or mps.
    """

    def __init__(self, choices: Sequence[Choice], folder: Path, device: str = "auto") -> None:
        self.choices = {choice.name: choice for choice in choices}
        self.folder, self.device = folder, device
        self._loaded: tuple[str, Model] | None = None

    def answer(self, file: Path, choice: str, progress: Progress = lambda done, total: None) -> Answer:
        """The result of a file, or why there is none."""
        try:
            return self._answer(file, choice, progress)
        except UserError as error:
            return Answer(self._one_line(str(error), file))
        except torch.OutOfMemoryError as error:
            return Answer(f"{file.name}: out of device memory ({first_line(error)}); use a smaller picture")
        except OSError as error:
            return Answer(self._one_line(f"{error.filename or file}: {error.strerror or first_line(error)}", file))
        except Exception as error:  # the page stays in use; the terminal shows where it came from
            log.exception("demo.py: unexpected error")
            return Answer(f"{file.name}: unexpected {type(error).__name__}; the terminal shows where")

    def _answer(self, file: Path, choice: str, progress: Progress) -> Answer:
        check_size(str(file), file.stat().st_size)
        frames = read_video(file) if is_video(file) else read_picture(file)
        model = self.model(choice)
        if isinstance(frames, Image.Image):
            result, what = predict_picture(model, frames), ""
        else:
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            result = predict_video(model, frames, folder, progress)
            what = f", {len(frames.frames)} frames of {frames.seconds:.1f} s"
        width, height = result.photo.size
        size = f"{width:,} x {height:,} pixels{what}"
        took = f"predicted in {result.seconds:.1f} s on {model.device.type}"
        return Answer(printable(f"{file.name}: {size}; {took} by {choice}"), result)

    def model(self, choice: str) -> Model:
        """The network of a choice. Raises ConfigError on an unknown name, and what `load_model` raises."""
        if choice not in self.choices:
            raise ConfigError(f"{choice!r} is not among the checkpoints; {hint(choice, self.choices)}")
        if self._loaded is None or self._loaded[0] != choice:
            self._loaded = None  # frees its memory before the next one is loaded
            found = self.choices[choice]
            self._loaded = choice, load_model(found.checkpoint, found.config, self.device)
        return self._loaded[1]

    def _one_line(self, text: str, file: Path) -> str:
        """An error with the uploaded file's name instead of its temporary path, and short paths of checkpoints."""
        for choice in self.choices.values():
            text = text.replace(str(choice.checkpoint.parent), shown(choice.checkpoint.parent))
        return printable(text.replace(str(file), file.name))
