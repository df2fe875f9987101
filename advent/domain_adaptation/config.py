"""Config: defaults <- BASE files <- the YAML file <- KEY=VALUE, strictly checked, always a new object."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from easydict import EasyDict

from advent.dataset.paths import CONFIGS, expand_user
from advent.dataset.protocol import class_set, geometry_of
from advent.domain_adaptation.config_defaults import (
    AT_LEAST,
    AT_MOST,
    CHOICES,
    DEFAULTS_YAML,
    FOLDERS,
    LENGTHS,
    LISTS,
    NULLABLE,
    PATHS,
    SINCE,
    SIZES,
    WITHOUT_EFFECT,
)
from advent.errors import ConfigError, closest, hint
from advent.utils.serialization import parse_value, read_yaml

log = logging.getLogger(__name__)

# Spellings of the release's README that never existed there.
ALIASES = {"configs/configs/dg.yml": "dg.yml", "intrada.yml": "intrada.yml", "intra_trained.yml": "intra_trained.yml"}
METHOD_ALIASES = {"dg": "DAF"}
FLOAT = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
DIGITS = re.compile(r"[-+]?[0-9][0-9_:.]*")
NULLS = ("", "~", "null", "Null", "NULL")  # YAML's spellings of nothing

Tree = dict[str, Any]


def default_config() -> EasyDict:
    """A fresh copy of the defaults."""
    return EasyDict(yaml.safe_load(DEFAULTS_YAML))


def load_config(path_or_name: str | Path | None, overrides: Sequence[str] = (), default: str = "dg.yml") -> EasyDict:
    """The config of a file (path, or name under configs/), with `KEY=VALUE` overrides applied last.

    `None` takes `default` and says so. Raises ConfigError naming key, file and the nearest valid key or value.
    """
    if path_or_name is None:
        log.info("no --cfg: using configs/%s (EP1)", default)
        path_or_name = default
    config = default_config()
    merge_file(config, find_config(path_or_name), ())
    if any(override.partition("=")[0].strip() == "TARGET" for override in overrides):
        config.GEOMETRY_TARGET = None  # the file's belongs to the file's target
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r}: want KEY=VALUE, for example TRAIN.MAX_ITERS=1000")
        try:
            value = _override_value(key.strip(), text)
        except yaml.YAMLError:
            raise ConfigError(f"{override[:80]!r}: the value is not valid YAML; put quotes around it") from None
        except ValueError as error:
            raise ConfigError(f"{override[:80]!r}: not a value in YAML ({str(error).splitlines()[0]})") from None
        _merge(config, _nested(key.strip(), value), "command line", "")
    _check(config, str(path_or_name))
    # From here on the config itself says what its classes are: it is written beside every checkpoint.
    config.CLASSES = class_set(config).as_mapping()
    # Likewise how its target's images meet the input size; null where the spec is not to be had.
    config.GEOMETRY_TARGET = config.GEOMETRY_TARGET or geometry_of(config.TARGET)
    return config


def find_config(path_or_name: str | Path) -> Path:
    """A config's path, by path, or by bare name under configs/ with or without `.yml`.

    The published spellings that never existed are announced aliases; anything else that does not exist is an error
    that says where it was looked for, and the nearest name.
    """
    given = Path(expand_user(str(path_or_name)))
    if given.is_file():
        return given
    shown = given.as_posix().removeprefix("./")
    alias = ALIASES.get(shown)
    if alias and (CONFIGS / alias).is_file():
        log.info("%s: not there, using configs/%s, which is what it stands for", path_or_name, alias)
        return CONFIGS / alias
    looked = [CONFIGS / shown, CONFIGS / f"{shown}.yml"]
    for candidate in looked:
        if not given.is_absolute() and ".." not in given.parts and candidate.is_file():
            return candidate
    names = [p.relative_to(CONFIGS).with_suffix("").as_posix() for p in CONFIGS.rglob("*.yml")]
    names = [name for name in names if not name.startswith(("datasets/", "classes/", "base/", "benchmarks/"))]
    raise ConfigError(
        f"{path_or_name}: no such config, neither as a path nor under {CONFIGS}; "
        f"{hint(given.with_suffix('').name, sorted(names))}"
    )


def merge_file(config: Tree, path: Path, seen: tuple[Path, ...]) -> None:
    """Merge a YAML file, its BASE files first, into `config`."""
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path}: BASE leads back to itself ({' -> '.join(p.name for p in (*seen, path))})")
    content = read_yaml(path)
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: want a mapping of keys, got {type(content).__name__}")
    content = dict(content)
    bases = content.pop("BASE", [])
    for base in [bases] if isinstance(bases, str) else bases:
        if not isinstance(base, str):
            raise ConfigError(f"{path}: BASE: want names of configs, got {base!r}")
        beside = path.parent / base
        merge_file(config, beside if beside.is_file() else find_config(base), (*seen, path))
    if "TARGET" in content:
        config["GEOMETRY_TARGET"] = None  # a BASE's belongs to the BASE's target
    _merge(config, content, str(path), "")


def _override_value(key: str, text: str) -> Any:
    """The value of `KEY=text`: as written where the key holds text (a path may hold ` #`), else read as YAML.

    Text in quotes is what they enclose. A key that may be null is null in YAML's spellings of it.
    """
    default = _DEFAULTS.get(key, 0)
    holds_text = (default is None or isinstance(default, str)) and key not in CHOICES
    if not holds_text or (key == "CLASSES" and text.startswith("{")):  # a whole class set
        return parse_value(text)
    if key in NULLABLE and text.strip() in NULLS:
        return None
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        with contextlib.suppress(yaml.YAMLError, ValueError):  # no pair of quotes: they are the text's own
            enclosed = parse_value(text)
            return enclosed if isinstance(enclosed, str) else text
    return text


def _nested(key: str, value: Any) -> Tree:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _merge(config: Tree, content: Mapping[Any, Any], where: str, prefix: str) -> None:
    for name, value in content.items():
        key = f"{prefix}{name}"
        if not isinstance(name, str) or name not in config:
            raise ConfigError(f"{where}: {key}: no such key{_nearest_key(key)}")
        if isinstance(_TREE.get(key), dict):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {key}: want a section of keys, got {value!r}")
            _merge(config[name], value, where, f"{key}.")
        else:
            config[name] = _typed(key, value, where)


def _nearest_key(key: str) -> str:
    known = [name for name, _ in flat(default_config())]
    last = {name.rsplit(".", 1)[-1]: name for name in known}
    nearest = closest(key, known) or last.get(closest(key.rsplit(".", 1)[-1], last) or "")
    return f"; did you mean {nearest}?" if nearest else ""


def flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of every leaf, in order."""
    leaves: list[tuple[str, Any]] = []
    for name, value in config.items():
        nested = isinstance(value, Mapping)
        leaves += flat(value, f"{prefix}{name}.") if nested else [(f"{prefix}{name}", value)]
    return leaves


_DEFAULTS = dict(flat(default_config()))
_TREE = {name: value for name, value in default_config().items() if isinstance(value, dict)}  # sections


def _typed(key: str, value: Any, where: str) -> Any:
    """The value in the default's type, or ConfigError. YAML 1.1's traps (1e-4, off, false) are understood."""
    want = _DEFAULTS[key]
    if value is None:
        if key in NULLABLE:
            return None
        raise ConfigError(f"{where}: {key}: must not be null")
    if key in CHOICES and isinstance(value, bool):
        value = ("on" if value else "off") if "off" in CHOICES[key] else str(value).lower()
    if isinstance(want, bool):
        good = isinstance(value, bool)
    elif isinstance(want, int):
        good = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(want, float):
        value = _number(value)
        good = isinstance(value, float)
    elif isinstance(want, list):
        good, value = _list(key, value)
    elif key == "CLASSES" and isinstance(value, Mapping):
        good, value = True, plain(value)
    else:
        good = isinstance(value, str) and (value != "" or want == "") and len(value) < 4096 and "\0" not in value
    if not good:
        kind = "list" if isinstance(want, list) else type(want).__name__ if want is not None else "str"
        kind = f"list of {LENGTHS[key]} numbers" if key in LENGTHS else kind
        fix = f"for example {key}={_example(want)}"
        if kind == "str":
            fix = "put quotes around text that looks like a number, a truth value or a list"
        elif isinstance(value, str) and DIGITS.fullmatch(value):
            fix = "no leading zeros (octal in YAML), no colons (base 60)"
        raise ConfigError(f"{where}: {key}: want {kind}, got {str(value)[:80]!r}; {fix}")
    return _expanded(value, where, key) if key in PATHS else value


def _expanded(value: Any, where: str, key: str) -> Any:
    """A path, or each of a list, with `~` replaced by the home folder; a class set in full stays as it is."""
    if isinstance(value, list):
        return [_expanded(item, where, key) for item in value]
    try:
        return expand_user(value) if isinstance(value, str) else value
    except ConfigError as error:
        raise ConfigError(f"{where}: {key}: {error}") from None


def _example(want: Any) -> str:
    return str(want if want is not None else "FILE").replace(" ", "")


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and FLOAT.fullmatch(value):
        return float(value)
    if isinstance(value, int) and abs(value) < 2**53:
        return float(value)
    return value if not isinstance(value, float) or abs(value) < float("inf") else None


def _list(key: str, value: Any) -> tuple[bool, Any]:
    if not isinstance(value, (list, tuple)):
        return False, value
    if key in LISTS:
        items = [_number(v) if LISTS[key] is float else v for v in value]
        return all(isinstance(v, LISTS[key]) and v != "" for v in items), items
    if key not in LENGTHS:
        good = all(isinstance(v, dict) and set(v) == {"name", "script", "cfg"} for v in value)
        return good and all(isinstance(x, str) for v in value for x in v.values()), list(value)
    if len(value) != LENGTHS[key]:
        return False, value
    if key == "TRAIN.IMG_MEAN":
        numbers = [_number(v) for v in value]
        return all(isinstance(v, float) for v in numbers), numbers
    least = 0 if key == "TRAIN.DEPTH_POWER" else 1
    return all(isinstance(v, int) and not isinstance(v, bool) and least <= v < 2**16 for v in value), list(value)


def _check(config: EasyDict, where: str) -> None:
    config.TRAIN.DA_METHOD = METHOD_ALIASES.get(config.TRAIN.DA_METHOD, config.TRAIN.DA_METHOD)
    for key, value in flat(config):
        if key in CHOICES and value is not None and value not in CHOICES[key]:
            raise ConfigError(f"{where}: {key}: {value!r} is none of {', '.join(CHOICES[key])}")
        if key in AT_LEAST and not value >= AT_LEAST[key]:
            raise ConfigError(f"{where}: {key}: {value} is too small; at least {AT_LEAST[key]}")
        if key in AT_MOST and not value <= AT_MOST[key]:
            raise ConfigError(f"{where}: {key}: {value} is too large; at most {AT_MOST[key]}")
        if key in SIZES and value and key != "MODEL.DEPTH_SIZE" and min(value) < 32:
            raise ConfigError(
                f"{where}: {key}: {value} (width, height) is too small for the discriminator; at least 32 x 32"
            )
    every, used = _DEFAULTS["MODEL.DILATIONS"], config.MODEL.DILATIONS
    if not used or used != [rate for rate in every if rate in used]:
        raise ConfigError(f"{where}: MODEL.DILATIONS: {used}: want some of {every}, ascending, for example [6,12]")
    train = config.TRAIN
    if train.EARLY_STOP > train.MAX_ITERS:
        raise ConfigError(
            f"{where}: TRAIN.EARLY_STOP: {train.EARLY_STOP} lies behind the end of the schedule, TRAIN.MAX_ITERS: "
            f"{train.MAX_ITERS}; lower one or raise the other"
        )
    leaves = dict(flat(config))
    for key in FOLDERS:
        if any(part in (leaves[key] or "") for part in ("..", "/", "\\")):
            raise ConfigError(f"{where}: {key}: {leaves[key]!r} is a folder's name, not a path; use EXP_ROOT for paths")
    test = config.TEST
    if test.MODE == "single" and not (test.RESTORE_FROM or test.ENSEMBLE):
        raise ConfigError(f"{where}: TEST.MODE: single needs a checkpoint: TEST.RESTORE_FROM=FILE")
    if test.WEIGHTS and len(test.WEIGHTS) != len(test.ENSEMBLE):
        raise ConfigError(
            f"{where}: TEST.WEIGHTS: {len(test.WEIGHTS)} weights for the {len(test.ENSEMBLE)} files of TEST.ENSEMBLE"
        )
    if not test.SCALES or min(test.SCALES) < 0.1 or max(test.SCALES) > 4:
        raise ConfigError(f"{where}: TEST.SCALES: {test.SCALES}: want at least one scale, each between 0.1 and 4")


def plain(value: Any) -> Any:
    """The same tree in plain dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else copy.copy(value)


def dump_config(config: Mapping[str, Any]) -> str:
    """The whole config as YAML; loading it gives the same config."""
    return yaml.safe_dump(plain(config), sort_keys=False)


def config_digest(config: Mapping[str, Any], ignore: Sequence[str] = WITHOUT_EFFECT) -> str:
    """SHA-256 of a config without the keys that training does not depend on (device, workers, folders, TEST).

    Keys that came later (SINCE) count only where they say something else than earlier versions did.
    """
    sections = tuple(key for key in ignore if key.endswith("."))
    leaves = {
        k: v for k, v in flat(plain(config))
        if k not in ignore and not k.startswith(sections) and v not in SINCE.get(k, ())
    }  # fmt: skip
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()


# ADVENT's interface, for people who import it. Nothing of this project reads the global.
cfg = default_config()


def cfg_from_file(filename: str | Path) -> None:
    """Merge a YAML file into the module's global `cfg` (ADVENT's interface)."""
    merge_file(cfg, Path(filename), ())
    _check(cfg, str(filename))
