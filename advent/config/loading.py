"""Config files: defaults <- BASE files <- protocol file <- its stage's section <- KEY=VALUE, checked key by key.

A protocol is one YAML file: what its stages share, and a section per stage under STAGES, in the chain's order. A
section names its SCRIPT, perhaps a METHOD (an overlay in configs/methods), and the keys that differ. `NAME:SECTION`
names one section; a stage script given only `NAME` takes its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel

from advent.config.class_set import class_set, geometry_of
from advent.config.fields import (
    FIELDS,
    SECTIONS,
    checked_value,
    earlier_values,
    nearest_key,
    parse_override,
    without_effect,
)
from advent.config.files import (
    KINDS,
    ConfigReference,
    StageSection,
    Tree,
    find_config,
    named_file,
    read_content,
    read_layers,
)
from advent.config.schema import ClassSetConfig, Config
from advent.config.value_types import Geometry
from advent.errors import ConfigError
from advent.utils.paths import find_in_configs

log = logging.getLogger(__name__)

# Evaluation script -> the training script whose section it scores by default.
SCORES = {"test.py": "train.py", "test_intra.py": "train_intra.py"}
RENAMED = {"STAGE.CHECK_ORIGIN": "STAGE.CHECK_PROVENANCE"}  # version 0.1 -> today
REMOVED = ("STAGE.SCRIPT_AFTER", "STAGE.CONFIG_AFTER", "STAGE.CONFIG_RANKING", "PIPELINE.STAGES")  # of version 0.1


def default_config() -> Config:
    """A new config of all defaults."""
    return Config()


def load_config(
    path_or_name: str | Path | None,
    overrides: Sequence[str] = (),
    default: str = "ep1",
    script: str | None = None,
    method: str | None = None,
) -> Config:
    """The config of a file (path, or name under configs/), with `KEY=VALUE` overrides applied last.

    `None` takes `default` and says so. Of a protocol file: the section that `path_or_name` names (`ep2:daf`), else the
    one of `script`, else only what the stages share. `method`: an overlay in configs/methods. Raises ConfigError naming
    key, file and the nearest valid key or value.
    """
    if path_or_name is None:
        log.info("no --cfg: using configs/%s.yml (EP1)", default)
        path_or_name = default
    reference = find_config(path_or_name)
    layers, sections = read_layers(reference.path, ())
    tree: Tree = Config().model_dump()
    for where, content in layers:
        _merge(tree, content, where, "")
    section = _choose(reference, sections, script)
    if section is not None:
        _merge_section(tree, reference, sections, section)
    method = method or reference.method
    if method is not None:
        overlay = named_file("methods", method)
        _merge(tree, {"STAGE": {"NAME": method}, **read_content(overlay)}, str(overlay), "")
    _merge(tree, reference.values, str(path_or_name), "")
    for override in overrides:
        name, value = parse_override(override)
        if name == "TARGET":
            tree["GEOMETRY_TARGET"] = None  # the file's belongs to the file's target
        _merge(tree, _nested(name, value), "command line", "")
    config = Config.model_validate(tree)
    check(config, str(path_or_name))
    # From here on the config itself says what its classes are: it is written beside every checkpoint.
    config.CLASSES = ClassSetConfig(**class_set(config).as_mapping())
    # Likewise how its target's images are brought to the input size; null where the spec is not available.
    config.GEOMETRY_TARGET = config.GEOMETRY_TARGET or cast(Geometry | None, geometry_of(config.TARGET))
    return config


def protocol_sections(path_or_name: str | Path) -> list[StageSection]:
    """The stages of a protocol file, in order; empty for a file without STAGES."""
    return list(read_layers(find_config(path_or_name).path, ())[1].values())


def stage_command(config: Config, stage: str | None) -> str:
    """The command that runs another stage of the config's protocol, by its name: for messages about missing files."""
    protocol, _, _ = (config.STAGE.PROTOCOL or "").rpartition(":")
    if protocol and stage:
        with contextlib.suppress(ConfigError):
            for section in protocol_sections(protocol):
                if section.name == stage:
                    return f"python {section.script} --cfg {protocol}:{stage}"
    return f"the stage {stage!r} of this experiment (--cfg PROTOCOL:STAGE)"


def merge_file(config: Tree, path: Path) -> None:
    """Merge a YAML file, its BASE files first, into a tree of plain dicts. Raises ConfigError."""
    for where, content in read_layers(path, ())[0]:
        _merge(config, content, where, "")


def _choose(reference: ConfigReference, sections: dict[str, StageSection], script: str | None) -> StageSection | None:
    """The section that was named, else the last one of the script. Raises ConfigError where there is none."""
    listed = ", ".join(f"{reference.name}:{name}" for name in sections)
    if reference.section is not None:
        if reference.section not in sections:
            known = f"its sections: {listed}" if sections else "it has no STAGES"
            raise ConfigError(f"{reference.name}: no section {reference.section!r}; {known}")
        section = sections[reference.section]
        if script in KINDS and script != section.script:
            command = f"python {section.script} --cfg {reference.name}:{section.name}"
            raise ConfigError(f"{reference.name}:{section.name} is a section of {section.script}; run: {command}")
        return section
    if not sections or script is None:
        return None
    own = [section for section in sections.values() if section.script == SCORES.get(script, script)]
    if script not in (*KINDS, *SCORES):  # a tool that looks at data or networks: as stage 0 uses them
        own = [section for section in sections.values() if section.script == "train.py"]
        return own[-1] if own else None
    if not own:
        raise ConfigError(f"{reference.name}: no section for {script}; its sections: {listed}")
    return own[-1]


def _merge_section(
    tree: Tree, reference: ConfigReference, sections: dict[str, StageSection], section: StageSection
) -> None:
    """A stage's keys: its kind's file, its place in the chain, its method's overlay, and its own."""
    kind = find_in_configs(f"stages/{KINDS[section.script]}.yml")
    _merge(tree, read_content(kind) if kind.is_file() else {}, str(kind), "")
    before = list(sections.values())[: list(sections).index(section.name)]
    trained = [other.name for other in before if other.trains]
    ranked = [other.name for other in before if not other.trains]
    place: Tree = {"NAME": section.name, "PROTOCOL": f"{reference.name}:{section.name}"}
    if section.script != "train.py" and trained:
        place["AFTER"] = trained[-1]
    if section.script == "train_intra.py" and ranked:
        place["RANKING"] = ranked[-1]
    _merge(tree, {"STAGE": place}, reference.name, "")
    where = f"{reference.path}: STAGES.{section.name}"
    if section.method is not None:
        overlay = named_file("methods", section.method)
        _merge(tree, read_content(overlay), str(overlay), "")
    _merge(tree, section.values, where, "")


def _nested(name: str, value: Any) -> Tree:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _merge(tree: Tree, content: Mapping[Any, Any], where: str, prefix: str) -> None:
    if not prefix and "TARGET" in content:
        tree["GEOMETRY_TARGET"] = None  # a BASE's belongs to the BASE's target
    for given, value in content.items():
        name = f"{prefix}{given}"
        if name in REMOVED or (name == "PIPELINE" and isinstance(value, Mapping)):
            continue  # in the config.yml of a run of version 0.1
        name = RENAMED.get(name, name)
        if name in SECTIONS:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {name}: want a section of keys, got {value!r}")
            _merge(tree[name], value, where, f"{name}.")
        elif name in FIELDS:
            tree[name.rsplit(".", 1)[-1]] = checked_value(name, value, where)
        else:
            raise ConfigError(f"{where}: {name}: no such key{nearest_key(name)}")


def flat(config: Config | Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of every leaf, in order."""
    leaves: list[tuple[str, Any]] = []
    for name, value in plain(config).items():
        leaves += flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return leaves


def plain(value: Any) -> Any:
    """The same tree in plain dicts and lists."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def dump_config(config: Config) -> str:
    """The whole config as YAML; loading it gives the same config."""
    return yaml.safe_dump(plain(config), sort_keys=False)


def config_digest(config: Config, ignore: Sequence[str] | None = None) -> str:
    """SHA-256 of a config without the keys that training does not depend on (device, workers, folders, TEST).

    Keys of later versions count only where they change what earlier versions did.
    """
    ignore = without_effect() if ignore is None else ignore
    sections = tuple(name for name in ignore if name.endswith("."))
    leaves = {
        name: value
        for name, value in flat(config)
        if name not in ignore and not name.startswith(sections) and value not in earlier_values(name)
    }
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()


def as_config(config: Config | Mapping[str, Any]) -> Config:
    """A config from ADVENT's EasyDict, or itself. Raises ConfigError."""
    if isinstance(config, Config):
        return config
    tree = Config().model_dump()
    _merge(tree, plain(config), "cfg", "")
    return Config.model_validate(tree)


def check(config: Config, where: str) -> None:
    """Conditions between keys. Raises ConfigError."""
    train, test = config.TRAIN, config.TEST
    every = FIELDS["MODEL.DILATIONS"].get_default(call_default_factory=True)
    used = config.MODEL.DILATIONS
    if not used or used != [rate for rate in every if rate in used]:
        raise ConfigError(f"{where}: MODEL.DILATIONS: {used}: want some of {every}, ascending, for example [6,12]")
    if train.EARLY_STOP > train.MAX_ITERS:
        raise ConfigError(
            f"{where}: TRAIN.EARLY_STOP: {train.EARLY_STOP} is after the end of the schedule, TRAIN.MAX_ITERS: "
            f"{train.MAX_ITERS}; lower one or raise the other"
        )
    _check_augmentation(config, where)
    if train.DEPTH_LOSS == "log_l1" and config.MODEL.DEPTH_OUTPUT != "log":
        # A linear output starts near 0, below the smallest inverse depth, where log_l1 has no gradient.
        raise ConfigError(f"{where}: TRAIN.DEPTH_LOSS: log_l1 needs a positive depth; set MODEL.DEPTH_OUTPUT=log")
    if config.RANK.CLASS_SHARE and not config.RANK.THRESHOLD:
        raise ConfigError(
            f"{where}: RANK.CLASS_SHARE: {config.RANK.CLASS_SHARE} lowers RANK.THRESHOLD, which is 0; set it, for "
            "example to 0.9"
        )
    if test.MODE == "single" and not (test.RESTORE_FROM or test.ENSEMBLE):
        raise ConfigError(f"{where}: TEST.MODE: single needs a checkpoint: TEST.RESTORE_FROM=FILE")
    if test.WEIGHTS and len(test.WEIGHTS) != len(test.ENSEMBLE):
        raise ConfigError(
            f"{where}: TEST.WEIGHTS: {len(test.WEIGHTS)} weights for the {len(test.ENSEMBLE)} files of TEST.ENSEMBLE"
        )
    _check_crop(where, "TRAIN.PREDICT_", train.PREDICT_CROP, train.PREDICT_STRIDE)
    _check_crop(where, "TEST.", test.CROP, test.STRIDE)
    if not test.SCALES or min(test.SCALES) < 0.1 or max(test.SCALES) > 4:
        raise ConfigError(f"{where}: TEST.SCALES: {test.SCALES}: want at least one scale, each between 0.1 and 4")


def _check_augmentation(config: Config, where: str) -> None:
    """Crops fit into the images of both domains at some zoom. Raises ConfigError."""
    (low, high), crop = config.AUGMENT.SCALE, config.AUGMENT.CROP
    if not 0.1 <= low <= high <= 10:
        raise ConfigError(f"{where}: AUGMENT.SCALE: {[low, high]}: want the smaller zoom first, both from 0.1 to 10")
    for name in ("INPUT_SIZE_SOURCE", "INPUT_SIZE_TARGET"):
        width, height = getattr(config.TRAIN, name)
        crop_width, crop_height = crop or (width, height)
        if crop_width > width or crop_height > height:
            raise ConfigError(
                f"{where}: AUGMENT.CROP: {crop} is larger than TRAIN.{name}: {[width, height]}; lower CROP or raise "
                f"{name}"
            )
        smallest = max(crop_width / width, crop_height / height)
        if high < smallest:
            raise ConfigError(
                f"{where}: AUGMENT.SCALE: {[low, high]}: a crop of {crop_width}x{crop_height} from TRAIN.{name} "
                f"{[width, height]} needs a zoom of at least {smallest:.3g}; raise SCALE or lower CROP"
            )


def _check_crop(where: str, prefix: str, crop: Sequence[int] | None, stride: Sequence[int] | None) -> None:
    """Raise ConfigError if the sliding crops would leave pixels out, or if a step has no crop."""
    if stride is None:
        return
    if crop is None:
        raise ConfigError(f"{where}: {prefix}STRIDE: {stride} is the step of {prefix}CROP, which is null; set both")
    if any(step > side for step, side in zip(stride, crop, strict=True)):
        raise ConfigError(
            f"{where}: {prefix}STRIDE: {stride} is larger than {prefix}CROP: {crop}, so pixels between the crops would "
            "have no prediction; lower it"
        )
