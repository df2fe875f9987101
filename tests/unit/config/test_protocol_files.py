"""Protocol files: sections, order of stages, methods, aliases, and configs of version 0.1."""

import pytest
import yaml

from advent.config.files import aliases, find_config
from advent.config.loading import (
    as_config,
    config_digest,
    default_config,
    dump_config,
    flat,
    load_config,
    protocol_sections,
    stage_command,
)
from advent.config.reference import config_reference, spec_reference
from advent.domain_adaptation import config as facade
from advent.errors import ConfigError
from advent.utils.paths import CONFIGS

PROTOCOLS = [path.stem for path in sorted(CONFIGS.glob("*.yml")) if path.stem != "aliases"]


@pytest.mark.parametrize("name", [*aliases(), *(f"{p}:{s.name}" for p in PROTOCOLS for s in protocol_sections(p))])
def test_every_alias_and_section_loads(name):
    load_config(name)


def test_a_script_takes_its_own_section():
    assert load_config("ep2", script="train_isl.py").STAGE.PROTOCOL == "ep2:isl"
    assert load_config("ep2", script="entropy.py").STAGE.NAME == "rank"
    assert load_config("quick", script="train.py").STAGE.NAME == "daf"  # the last of several sections
    assert load_config("quick", script="test.py").STAGE.NAME == "daf"
    assert load_config("quick", script="test_intra.py").STAGE.NAME == "ida"
    assert load_config("quick:isl", script="test.py").STAGE.NAME == "isl"
    assert load_config("ep2", script="doctor.py").STAGE.PROTOCOL == "ep2:daf"  # a tool: as stage 0
    assert load_config("ep2").STAGE.PROTOCOL is None  # what the stages share


@pytest.mark.parametrize(
    ("name", "script", "words"),
    [
        ("ep2:isl", "train.py", ["ep2:isl", "python train_isl.py --cfg ep2:isl"]),
        ("ep2:warmup", None, ["warmup", "ep2:daf", "ep2:ida"]),
        ("gta5", "entropy.py", ["entropy.py", "gta5:advent"]),
        ("ep2:isl:x", None, ["no such config"]),
    ],
)
def test_a_wrong_section_is_refused_in_one_line(name, script, words):
    with pytest.raises(ConfigError) as error:
        load_config(name, script=script)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_stage_starts_from_the_training_section_before_it():
    places = {s.name: load_config(f"quick:{s.name}").STAGE for s in protocol_sections("quick")}
    assert [places[name].AFTER for name in ("source_only", "daf", "isl", "rank", "ida")] == [
        None,
        None,
        "daf",
        "isl",
        "isl",
    ]
    assert places["ida"].RANKING == "rank"
    overridden = load_config("quick:ida", ["STAGE.AFTER=daf", "STAGE.RANKING=other"]).STAGE
    assert (overridden.AFTER, overridden.RANKING) == ("daf", "other")


def test_the_command_of_another_stage():
    assert stage_command(load_config("isl"), "daf") == "python train.py --cfg ep1:daf"
    assert (
        stage_command(load_config("advent_intrada"), "advent_rank") == "python entropy.py --cfg ep1_intrada:advent_rank"
    )
    assert "'daf'" in stage_command(default_config(), "daf")


def test_a_method_is_an_overlay():
    config = load_config("ep1:daf", method="advent")
    assert (config.MODEL.NAME, config.TRAIN.DA_METHOD, config.STAGE.NAME) == ("DeepLabv2", "AdvEnt", "advent")
    assert config.TRAIN.RESTORE_FROM == load_config("dg").TRAIN.RESTORE_FROM
    with pytest.raises(ConfigError, match="did you mean advent"):
        load_config("ep1:daf", method="advant")


def test_sections_of_an_own_file(tmp_path):
    own = tmp_path / "own.yml"
    own.write_text(
        "BASE: quick.yml\nSTAGES:\n  first: {SCRIPT: train.py, TRAIN: {POWER: 0.5}}\n  second: {SCRIPT: train_isl.py}\n"
    )
    assert load_config(own, script="train.py").TRAIN.POWER == 0.5
    second = load_config(f"{own}:second")
    assert (second.STAGE.AFTER, second.TRAIN.POWER) == ("first", 0.9)
    assert stage_command(second, "first") == f"python train.py --cfg {own}:first"
    own.write_text("STAGES: {first: {SCRIPT: tarin.py}}\n")
    with pytest.raises(ConfigError, match=r"STAGES.first: SCRIPT: 'tarin.py'"):
        load_config(own)
    own.write_text("STAGES: {first: {SCRIPT: train.py, TRAIN: {POWR: 1}}}\n")
    with pytest.raises(ConfigError, match=r"STAGES.first: TRAIN.POWR: no such key; did you mean TRAIN.POWER"):
        load_config(own, script="train.py")


def test_a_config_of_version_0_1_loads(tmp_path):
    tree = yaml.safe_load(dump_config(load_config("isl")))
    del tree["STAGE"]["PROTOCOL"], tree["STAGE"]["CHECK_PROVENANCE"]
    tree["STAGE"] |= {"SCRIPT_AFTER": "train.py", "CONFIG_AFTER": "dg", "CONFIG_RANKING": None, "CHECK_ORIGIN": False}
    tree["PIPELINE"] = {"STAGES": [{"name": "daf", "script": "train.py", "cfg": "dg"}]}
    (tmp_path / "config.yml").write_text(yaml.safe_dump(tree))
    config = load_config(tmp_path / "config.yml")
    assert config.STAGE.CHECK_PROVENANCE is False
    assert config_digest(config) == config_digest(load_config("isl"))


def test_values_are_checked_when_they_are_assigned():
    config = default_config()
    with pytest.raises(ValueError, match="DEPTH_POWER"):
        config.TRAIN.DEPTH_POWER = [1]
    with pytest.raises(ValueError, match="LERNING_RATE"):
        config.TRAIN.LERNING_RATE = 1.0


def test_advents_global_is_an_easydict_of_the_defaults(tmp_path):
    assert as_config(facade.cfg) == default_config()
    (tmp_path / "own.yml").write_text("TRAIN: {POWER: 0.25}\n")
    before = dict(flat(facade.cfg))
    try:
        facade.cfg_from_file(tmp_path / "own.yml")
        assert facade.cfg.TRAIN.POWER == 0.25
        assert as_config(facade.cfg).TRAIN.POWER == 0.25
    finally:
        facade.cfg.TRAIN.POWER = before["TRAIN.POWER"]


def test_the_references_of_keys_are_up_to_date():
    for page, text in (("config.md", config_reference()), ("dataset-spec.md", spec_reference())):
        assert (CONFIGS.parent / "docs" / page).read_text() == text, "python scripts/config_reference.py"
    assert find_config("ep1").name == "ep1"
