"""Types of config values: what YAML 1.1 reads is converted, and lengths, bounds and forms are checked."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from advent.utils.paths import expand_user

LONGEST_TEXT = 4096
NUMBER = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text and 3 as an integer: both are numbers here."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    return value


def as_switch(value: Any) -> Any:
    """YAML 1.1 reads off and on as booleans."""
    return {False: "off", True: "on"}[value] if isinstance(value, bool) else value


def boolean_word(value: Any) -> Any:
    """A truth value as the word that a key with a third choice takes: true, false."""
    return str(value).lower() if isinstance(value, bool) else value


def checked_text(value: str) -> str:
    """Text that can be a path or a name. Raises PydanticCustomError."""
    if "\0" in value or len(value) >= LONGEST_TEXT:
        raise PydanticCustomError("text", f"is longer than {LONGEST_TEXT} characters or holds a NUL")
    return value


def folder_name(value: str) -> str:
    """The name of a single folder. Raises PydanticCustomError for a path."""
    if any(part in value for part in ("..", "/", "\\")):
        raise PydanticCustomError("folder_name", "is a folder's name, not a path; use EXP_ROOT for paths")
    return value


def method_name(value: str) -> str:
    """TRAIN.DA_METHOD; the paper's repository calls DAF dg."""
    return "DAF" if value == "dg" else value


def _large_enough(size: list[int]) -> list[int]:
    if min(size) < 32:
        raise PydanticCustomError("input_size", "(width, height) is too small for the discriminator; at least 32 x 32")
    return size


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Text = Annotated[str, AfterValidator(checked_text), Field(min_length=1)]
FolderName = Annotated[Text, AfterValidator(folder_name)]
PathText = Annotated[Text, AfterValidator(expand_user)]
Geometry = Literal["stretch", "pad"]
Side = Annotated[int, Field(ge=1, lt=2**16)]
Size = Annotated[list[Side], Field(min_length=2, max_length=2)]
InputSize = Annotated[Size, AfterValidator(_large_enough)]
