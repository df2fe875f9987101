"""Untrusted files: no code is executed, memory is bounded, each file is refused with a one-line error."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

import checkpoint as checkpoint_tool
import test as test_script
import train
from advent.checkpoints.formats import open_checkpoint
from advent.checkpoints.io import read
from advent.dataset.file_lists import checked_names, read_list
from advent.dataset.image_io import MOST_PIXELS, picture_size, read_16bit, read_ids, read_image
from advent.errors import CheckpointError, ConfigError, DataError, first_line, printable
from advent.utils.serialization import parse_yaml, read_yaml
from helpers import tiny_data
from helpers.corruptions import png_that_claims


class Malicious:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def malicious_pickle(path, proof):
    path.write_bytes(pickle.dumps({"layer6": Malicious(f"touch {proof}")}))


def malicious_archive(path, proof):
    torch.save({"layer6.conv2d_list.0.weight": Malicious(f"touch {proof}")}, path)


def malicious_protocol_2(path, proof):
    torch.save({"w": Malicious(f"touch {proof}")}, path, _use_new_zipfile_serialization=False)


def zip_bomb(path, proof):
    plain = path.with_suffix(".plain")
    torch.save({"w": torch.zeros(25_000_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for member in source.infolist():
            bomb.writestr(member.filename, source.read(member))
    plain.unlink()


def truncated(path, proof):
    torch.save({"w": torch.zeros(10_000)}, path)
    path.write_bytes(path.read_bytes()[:-20_000])


def other_kind(path, proof):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))


def empty(path, proof):
    path.write_bytes(b"")


def claims_memory(path, proof):
    path.write_bytes(pickle.dumps(bytearray, protocol=2)[:-1] + b"\x8a\x06\x00\x00\x00\x00\x00\x7f\x85R.")


def tensors_of_nothing(path, proof):
    torch.save({"layer6.conv2d_list.0.weight": torch.zeros(1).expand(7, 10**9)}, path)


FILES = [
    malicious_pickle,
    malicious_archive,
    malicious_protocol_2,
    zip_bomb,
    truncated,
    other_kind,
    empty,
    claims_memory,
    tensors_of_nothing,
]


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_a_foreign_checkpoint(make, data, capsys):
    path, proof = data / "untrusted.pth", data / "executed"
    make(path, proof)
    for script, key in ((test_script, "TEST.RESTORE_FROM"), (train, "TRAIN.RESTORE_FROM")):
        assert script.main(tiny_data.command_line(data, "quick:daf", f"{key}={path}")) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(error) == 1
        assert str(path) in error[0]
    assert not proof.exists()


@pytest.mark.parametrize("make", [malicious_pickle, malicious_archive])
def test_the_reason_for_a_refusal_is_given(make, tmp_path):
    make(tmp_path / "x.pth", tmp_path / "proof")
    with pytest.raises(CheckpointError, match="refused, it holds more than tensors"):
        read(tmp_path / "x.pth")


def escapes_in_names(path, proof):
    torch.save({"w\x1b[31mred": torch.zeros(2), "\x1b]0;t\x07b\nc": torch.zeros(1)}, path)


def test_refusals_carry_no_escape_codes(tmp_path, data, capsys):
    """PyTorch's messages and a checkpoint's names may contain terminal escape codes."""
    malicious_archive(tmp_path / "x.pth", tmp_path / "proof")
    with pytest.raises(
        CheckpointError, match=r"refused, it holds more than tensors \(.*unsupported GLOBAL posix\.system .*\)$"
    ) as error:
        read(tmp_path / "x.pth")
    assert str(error.value).isprintable()
    assert "weights_only" not in str(error.value)  # PyTorch advises weights_only=False, which executes the file
    torch.save({"w": torch.zeros(1), "stepper": tiny_data.picture}, tmp_path / "function.pth")
    with pytest.raises(
        CheckpointError, match=r"refused, .*Unsupported global: GLOBAL helpers\.tiny_data\.picture"
    ) as error:
        read(tmp_path / "function.pth")
    assert str(error.value).isprintable()
    escapes_in_names(data / "y.pth", None)
    assert (
        test_script.main(
            tiny_data.command_line(data, "quick:daf", "TEST.MODE=single", f"TEST.RESTORE_FROM={data}/y.pth")
        )
        == 2
    )
    said = capsys.readouterr().err
    assert "wred" in said
    assert "\x1b" not in said
    assert checkpoint_tool.main([str(data / "y.pth")]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x1b[1mbold\x1b[0m", "bold"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\tb\rc\u2028d", "a b c d"),
        ("bell\x07 \x9b31m\udcff", "bell? ?31m?"),
        ("Straße 日本", "Straße 日本"),
    ],
)
def test_untrusted_text_is_made_printable(text, plain):
    assert printable(text) == plain
    assert printable(text).isprintable()


def test_the_first_line_of_an_error():
    assert first_line(ValueError("\x1b[31m\n  \n first\nsecond")) == "first"
    assert first_line(MemoryError()) == "MemoryError"
    assert first_line("x" * 500) == "x" * 160


def test_zip_bomb_is_refused_unopened(tmp_path):
    zip_bomb(tmp_path / "x.pth", None)
    assert (tmp_path / "x.pth").stat().st_size < 1_000_000
    with pytest.raises(CheckpointError, match="would unpack to 100"):
        open_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("size", [(12_000, 12_000), (1_000_000, 1_000_000)])
def test_an_image_bomb_is_refused_unopened(size, tmp_path):
    assert size[0] * size[1] > MOST_PIXELS
    path = tmp_path / "bomb.png"
    for reader, bits in ((read_image, 8), (read_ids, 8), (lambda p: read_16bit(p, "depth"), 16)):
        png_that_claims(path, *size, bits)
        with pytest.raises(DataError, match=r"bomb\.png"):
            reader(path)


def test_postscript_is_never_started(tmp_path, monkeypatch):
    """Pillow detects formats by content, and its EPS reader starts Ghostscript; a .png file may be EPS."""
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *arguments, **options: started.append(arguments))
    path = tmp_path / "photo.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    for reader in (read_image, read_ids, picture_size):
        with pytest.raises(DataError, match=r"photo\.png: cannot be read as an image \(unknown format\)"):
            reader(path)
    assert not started


def test_pictures_below_the_bound_are_read(tmp_path):
    tiny_data.write_png(tmp_path / "large.png", np.zeros((3000, 4000), np.uint8))
    assert read_ids(tmp_path / "large.png").shape == (3000, 4000)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",  # exponential alias expansion
        "[" * 5000 + "]" * 5000,
        "{a: " * 40 + "1" + "}" * 40,
        "!!python/object/apply:os.system ['true']",
        "x: !!python/name:os.system",
    ],
)
def test_yaml_that_is_more_than_a_config(text, tmp_path):
    path = tmp_path / "x.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"x\.yml"):
        read_yaml(path)


def test_a_yaml_of_megabytes_is_refused(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text("a: 1\n" * 300_000)
    with pytest.raises(ConfigError, match="larger than 1,000,000 bytes"):
        read_yaml(path)


def test_plain_yaml_is_read():
    assert parse_yaml("a: [1, {b: 2}]") == {"a": [1, {"b": 2}]}


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", "C:\\x.png", "..\\x.png"])
def test_names_never_leave_their_folder(name, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "x.png").write_bytes(b"")
    (tmp_path / "list.txt").write_text(f"{name}\n")
    with pytest.raises(DataError, match="leaves the images' folder"):
        checked_names(read_list(tmp_path / "list.txt"), tmp_path / "images", ("", ".png"), "list.txt")


def test_no_eval_exec_or_unpickling_in_the_code():
    from pathlib import Path

    root = Path(__file__).parents[2]
    ours = [p for package in ("advent", "daf", "ida", "scripts") for p in (root / package).rglob("*.py")]
    ours += list(root.glob("*.py"))
    for path in ours:
        text = path.read_text()
        for word in ("eval(", "exec(", "os.system", "shell=True", "pickle.load", "yaml.load(", "weights_only=False"):
            assert word not in text.replace(".eval(", ""), f"{path}: {word}"
