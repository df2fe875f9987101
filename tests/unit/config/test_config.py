"""Config: merging, strictness, aliases, digests."""

import contextlib
import logging

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from advent.config import loading as module
from advent.config.fields import CHOICES
from advent.config.files import NOT_CONFIGS, find_config
from advent.config.loading import config_digest, dump_config, load_config
from advent.errors import ConfigError
from advent.utils.paths import CONFIGS

SHIPPED = [p.relative_to(CONFIGS).as_posix() for p in sorted(CONFIGS.rglob("*.yml"))]
SHIPPED = [name for name in SHIPPED if not name.startswith(NOT_CONFIGS)]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_loads_and_has_a_header(name):
    load_config(name)
    header = (CONFIGS / name).read_text().splitlines()
    assert header[0].startswith("# ")
    assert any(line.startswith("# Run: python ") for line in header)


def test_ep1_has_the_published_settings():
    config = load_config("dg")
    train = config.TRAIN
    assert (config.NUM_CLASSES, config.SOURCE, config.TARGET) == (16, "SYNTHIA", "Cityscapes")
    assert (train.INPUT_SIZE_SOURCE, train.INPUT_SIZE_TARGET) == ([1280, 760], [1024, 512])
    assert (train.LEARNING_RATE, train.LEARNING_RATE_D, train.MAX_ITERS) == (2.5e-4, 1e-4, 90000)
    assert (train.BACKBONE_UPDATES, train.DEPTH_POWER, train.RANDOM_SEED) == ("release", [1, 1], 1234)
    assert load_config("isl").TRAIN.EARLY_STOP == 25000
    assert load_config("isl").TRAIN.RANDOM_SEED == 1
    assert [load_config(f"{p}_isl").TRAIN.EARLY_STOP for p in ("ep2", "ep3")] == [5000, 10000]
    intra = load_config("intrada").TRAIN
    assert (intra.MAX_ITERS, intra.EARLY_STOP, intra.DA_METHOD) == (250000, 120000, "AdvEnt")
    assert intra.INPUT_SIZE_SOURCE == [1024, 512]


def test_order_defaults_base_file_overrides(tmp_path):
    (tmp_path / "base.yml").write_text("NUM_CLASSES: 7\nTRAIN: {POWER: 0.5, MOMENTUM: 0.8}\n")
    (tmp_path / "own.yml").write_text("BASE: base.yml\nTRAIN: {POWER: 0.6}\n")
    config = load_config(tmp_path / "own.yml", ["TRAIN.MOMENTUM=0.7"])
    assert (config.NUM_CLASSES, config.TRAIN.POWER, config.TRAIN.MOMENTUM) == (7, 0.6, 0.7)
    assert config.TRAIN.WEIGHT_DECAY == 5e-4


def test_loading_gives_a_new_object():
    first, second = load_config("dg"), load_config("dg")
    first.TRAIN.IMG_MEAN[0] = 0.0
    assert second.TRAIN.IMG_MEAN[0] > 100
    assert module.default_config().TRAIN.IMG_MEAN[0] > 100


def test_dumped_config_loads_to_the_same(tmp_path):
    config = load_config("ep2_isl", ["MODEL.DEPTH_SIZE=null"])
    (tmp_path / "dumped.yml").write_text(dump_config(config))
    assert load_config(tmp_path / "dumped.yml") == config


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("3", 3.0), ("-0", 0.0), ("2.5E-4", 2.5e-4)])
def test_floats_in_any_spelling(text, value):
    assert value == load_config("dg", [f"TRAIN.LEARNING_RATE={text}"]).TRAIN.LEARNING_RATE


@pytest.mark.parametrize(("override", "words"), [
    ("TRAIN.MAX_ITERS=true", ["TRAIN.MAX_ITERS", "int"]),
    ("TRAIN.MAX_ITERS=1.5", ["TRAIN.MAX_ITERS", "int"]),
    ("TRAIN.MAX_ITERS=null", ["null"]),
    ("TRAIN=3", ["section"]),
    ("TRAIN.INPUT_SIZE_SOURCE=[640]", ["list of 2"]),
    ("TRAIN.INPUT_SIZE_SOURCE=[640,0]", ["list of 2"]),
    ("TRAIN.INPUT_SIZE_TARGET=[16,16]", ["too small"]),
    ("TRAIN.LEARNING_RATE=.inf", ["TRAIN.LEARNING_RATE"]),
    ("TRAIN.LEARNING_RATE=.nan", ["TRAIN.LEARNING_RATE"]),
    ("TRAIN.LEARNING_RATE=-1", ["too small"]),
    ("RANK.LAMBDA1=2", ["too large"]),
    ("TRAIN.AMP=fp8", ["off, bf16"]),
    ("TRAIN.AMP=on", ["off, bf16"]),
    ("EXP_NAME=../x", ["folder's name"]),
    ("MAX_ITER=3", ["TRAIN.MAX_ITERS"]),
    ("MODEL.DILATIONS=[]", ["MODEL.DILATIONS", "[6, 12, 18, 24]"]),
    ("MODEL.DILATIONS=[12,6]", ["MODEL.DILATIONS", "ascending"]),
    ("MODEL.DILATIONS=[6,36]", ["MODEL.DILATIONS", "[6, 36]"]),
    ("MODEL.DILATIONS=[true]", ["MODEL.DILATIONS"]),
])  # fmt: skip
def test_refused_values_name_the_key(override, words):
    with pytest.raises(ConfigError) as error:
        load_config("dg", [override])
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_traps_of_yaml_1_1():
    assert load_config("dg", ["TRAIN.AMP=off"]).TRAIN.AMP == "off"
    assert load_config("dg", ["RANK.NORMALIZE=True"]).RANK.NORMALIZE == "true"


@pytest.mark.parametrize(("override", "value"), [
    ("DATA_ROOT=/data/set #1", "/data/set #1"), ("DATA_ROOT='/data/set #1'", "/data/set #1"),
    ("DATA_ROOT=[a]: b", "[a]: b"), ("DATA_ROOT=null", "null"), ("DATA_ROOT='it''s'", "it's"),
    ("DATA_ROOT='a' and 'b'", "'a' and 'b'"), ("DATA_ROOT='a': 'b'", "'a': 'b'"), ("DATA_ROOT=it's", "it's"),
    ("EXP_SUFFIX=LR=1e-3", "LR=1e-3"), ("EXP_SUFFIX=0123", "0123"), ("EXP_SUFFIX=1:30", "1:30"),
    ("EXP_SUFFIX=2024-01-02", "2024-01-02"), ("EXP_SUFFIX=12", "12"), ("EXP_SUFFIX=no", "no"), ("EXP_SUFFIX=", ""),
    ("DATA_CACHE=off", "off"), ("DATA_CACHE=null", None), ("DATA_CACHE=~", None), ("DATA_CACHE=", None),
    ("DATA_CACHE='null'", "null"),
])  # fmt: skip
def test_text_is_taken_as_it_is_written(override, value):
    key = override.partition("=")[0]
    assert dict(module.flat(load_config("dg", [override])))[key] == value


@pytest.mark.parametrize(("key", "text"), [
    ("TRAIN.RANDOM_SEED", "0123"), ("TRAIN.RANDOM_SEED", "1:30"), ("TRAIN.RANDOM_SEED", "-012"),
    ("TRAIN.POWER", "010"), ("TRAIN.POWER", "1:30.5"), ("TRAIN.POWER", "00.5"), ("TRAIN.POWER", "1:30"),
    ("TRAIN.INPUT_SIZE_SOURCE", "[0640, 320]"), ("MODEL.LAYERS", "[3, 4, 1:30, 3]"), ("TEST.SCALES", "[01, 2]"),
    ("TRAIN.IMG_MEAN", "[1, 2, 1:30]"), ("NUM_WORKERS", "2024-01-02"),
])  # fmt: skip
def test_octal_and_base_60_are_refused_everywhere(key, text, tmp_path):
    section, _, name = key.rpartition(".")
    content = f"{section}: {{{name}: {text}}}\n" if section else f"{name}: {text}\n"
    (tmp_path / "own.yml").write_text(content)
    for file, override in (("dg", [f"{key}={text}"]), (tmp_path / "own.yml", [])):
        with pytest.raises(ConfigError, match=key) as error:
            load_config(file, override)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["0123", "1:30", "2024-01-02", "007.5"])
def test_text_in_a_file_is_no_number_and_no_date(text, tmp_path):
    (tmp_path / "own.yml").write_text(f"EXP_SUFFIX: {text}\n")
    config = load_config(tmp_path / "own.yml")
    assert text == config.EXP_SUFFIX
    (tmp_path / "dumped.yml").write_text(dump_config(config))
    assert load_config(tmp_path / "dumped.yml") == config


@pytest.mark.parametrize(("text", "value"), [
    ("0", 0), ("+5", 5), ("1_000", 1000), ("0x1F", 31), ("0b11", 3),
])  # fmt: skip
def test_plain_integers_are_read_as_before(text, value):
    assert value == load_config("dg", [f"TRAIN.RANDOM_SEED={text}"]).TRAIN.RANDOM_SEED


@pytest.mark.parametrize("text", ["0.5", ".5", "5e-1", "+0.5", "0.5e+0", "5.0E-1"])
def test_plain_floats_are_read_as_before(text):
    assert load_config("dg", [f"TRAIN.POWER={text}"]).TRAIN.POWER == 0.5


@pytest.mark.parametrize("override", ["TRAIN.MAX_ITERS=10 #1", "TEST.SCALES=[1.0] #1", "TRAIN={MAX_ITERS: 9} # nine"])
def test_comment_behind_a_value_is_refused(override):
    with pytest.raises(ConfigError, match="comment"):
        load_config("dg", [override])


def test_home_folder_is_expanded_in_every_path_key(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    texts = {key for key, value in module.flat(module.default_config()) if value is None or isinstance(value, str)}
    names = {  # string keys that are not paths; all others expand ~
        "AUGMENT.CROP",
        "DEVICE", "EXP_NAME", "EXP_SUFFIX", "STAGE.NAME", "STAGE.AFTER", "STAGE.PROTOCOL", "STAGE.RANKING",
        "MODEL.NAME", "MODEL.ENCODER", "TRAIN.DA_METHOD", "TRAIN.SET_SOURCE",
        "TRAIN.SET_TARGET", "TEST.SET_TARGET", *CHOICES,
        "TRAIN.PREDICT_CROP", "TRAIN.PREDICT_STRIDE", "TEST.CROP", "TEST.STRIDE",  # sizes that are null by default
    }  # fmt: skip
    assert texts - names
    for key in texts - names - {"CLASSES", "SOURCE", "TARGET"}:
        (tmp_path / "own.yml").write_text(yaml.safe_dump(module._nested(key, "~/a b")))
        loaded = load_config("dg", [f"{key}=~/a b"]), load_config(tmp_path / "own.yml"), load_config("~/own.yml")
        for config in loaded:
            assert dict(module.flat(config))[key] == f"{tmp_path}/a b"
    assert [f"{tmp_path}/a", "b"] == load_config("dg", ["TEST.ENSEMBLE=[~/a, b]"]).TEST.ENSEMBLE
    assert load_config("dg", ["DATA_ROOT=a/~/b"]).DATA_ROOT == "a/~/b"
    with pytest.raises(ConfigError, match=r"DATA_ROOT.*unknown home folder ~nobody-here"):
        load_config("dg", ["DATA_ROOT=~nobody-here/data"])


def test_dg_is_accepted_for_daf():
    assert load_config("dg", ["TRAIN.DA_METHOD=dg"]).TRAIN.DA_METHOD == "DAF"


@pytest.mark.parametrize(("given", "found"), [
    ("./configs/configs/dg.yml", "ep1:daf"),
    ("./intrada.yml", "ep1:ida"),
    ("./intra_trained.yml", "ep1:ida"),
    ("quick/dg", "quick:daf"),
    ("ep2_low_isl", "ep2_low:isl"),
])  # fmt: skip
def test_published_config_names_are_aliases(given, found, caplog):
    with caplog.at_level(logging.INFO):
        reference = find_config(given)
    assert f"{reference.path.stem}:{reference.section}" == found
    assert found in caplog.text


@pytest.mark.parametrize("name", ["ep1", "ep1.yml", "ep1:daf", "configs/ep1.yml", "configs/ep1.yml:isl", "dg.yml"])
def test_found_by_name(name, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    assert find_config(name).path.resolve() == CONFIGS / "ep1.yml"


def test_circular_base_is_refused(tmp_path):
    (tmp_path / "a.yml").write_text("BASE: b.yml\n")
    (tmp_path / "b.yml").write_text("BASE: a.yml\n")
    with pytest.raises(ConfigError, match="leads back"):
        load_config(tmp_path / "a.yml")


def test_digest_ignores_what_has_no_effect():
    plain = config_digest(load_config("dg"))
    assert config_digest(load_config("dg", ["NUM_WORKERS=0", "EXP_ROOT=x", "TEST.MODE=best"])) == plain
    assert config_digest(load_config("dg", ["TRAIN.POWER=0.8"])) != plain


def test_digests_of_earlier_runs_are_unchanged():
    """Digests as written by version 37b627a. A newer key needs an entry in SINCE, or the digest of old runs changes."""
    assert config_digest(load_config("dg")).startswith("4c1db22dd79e6342")
    assert config_digest(load_config("dg", ["MODEL.DILATIONS=[6,12]"])) != config_digest(load_config("dg"))
    assert config_digest(load_config("quick/isl")).startswith("c8e57255da4c34de")


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_config_or_a_config_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "any.yml"
    path.write_bytes(content)
    try:
        load_config(path)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017


KEYS = [key for key, _ in module.flat(module.default_config())]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(KEYS), VALUES)
@settings(max_examples=300, deadline=None)
def test_any_value_for_a_key_gives_a_config_or_a_config_error(key, value):
    with contextlib.suppress(ConfigError):
        load_config("dg", [f"{key}={yaml.safe_dump(value, default_flow_style=True)}"])
