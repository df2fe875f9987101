"""Fuzzing of lists, specs, class sets and images: a valid result or a one-line error."""

import contextlib
import copy
import io

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from advent.dataset.classes import load_classes
from advent.dataset.file_lists import checked_names, read_list
from advent.dataset.formats import decoded_formats
from advent.dataset.image_io import picture_size, read_ids, read_image
from advent.dataset.layout import NamePattern
from advent.dataset.resolved_layout import resolve_layout
from advent.dataset.spec import load_spec
from advent.errors import ConfigError, DataError, UserError
from advent.utils.paths import CONFIGS

SYNTHIA = yaml.safe_load((CONFIGS / "datasets/synthia.yml").read_text())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("any")
    (root / "images").mkdir()
    (root / "images/a.png").write_bytes(b"")
    return root


def one_line(error, names=""):
    assert "\n" not in str(error)
    assert names in str(error)
    assert str(error).isprintable() or "\\x" not in str(error)


@given(st.binary(max_size=200) | st.text(max_size=60).map(str.encode) | st.just(b"a.png\r\n\r\na.png"))
@settings(max_examples=300, deadline=None)
def test_any_list(folder, content):
    path = folder / "list.txt"
    path.write_bytes(content)
    try:
        names = checked_names(read_list(path), folder / "images", NamePattern("{name}.png"), str(path))
    except DataError as error:
        one_line(error)
    else:
        assert set(names) == {"a.png"}


@pytest.fixture(scope="module")
def pictures():
    """Suffix -> bytes of a small image, for every supported format that Pillow can write."""
    encoded, photo = {}, Image.fromarray(np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3))
    suffixes = {name: suffix for suffix, name in Image.registered_extensions().items()}
    for name in sorted(Image.SAVE.keys() & set(decoded_formats())):
        for mode in ("RGB", "P", "L", "1"):
            handle = io.BytesIO()
            with contextlib.suppress(OSError, ValueError, KeyError):
                photo.convert(mode).save(handle, name)
                encoded[suffixes.get(name, f".{name}")] = handle.getvalue()
                break
    return encoded


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_damaged_picture(folder, pictures, data):
    """Truncated, or with bytes replaced, mostly in the header: the image is read, or a one-line error names it."""
    suffix = data.draw(st.sampled_from(sorted(pictures)))
    content = pictures[suffix]
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        at = data.draw(st.integers(0, min(len(content) - 1, 400)))
        junk = data.draw(st.binary(min_size=1, max_size=4) | st.sampled_from([bytes(4), b"\xff" * 4]))
        content = content[:at] + junk + content[at + len(junk) :]
    path = folder / f"picture{suffix}"
    path.write_bytes(content)
    for reader in (read_image, picture_size, read_ids):
        try:
            reader(path)
        except DataError as error:
            one_line(error, str(path))


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("load", [load_spec, load_classes])
def test_any_description(folder, load, content):
    path = folder / f"{abs(hash(content))}.yml"  # loaders cache by path
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        load(path)


@given(st.sampled_from([*SYNTHIA, "base", "extra"]), VALUES, st.sampled_from([None, *SYNTHIA]))
@settings(max_examples=400, deadline=None)
def test_a_spec_with_any_value(folder, key, value, dropped):
    raw = {**copy.deepcopy(SYNTHIA), key: value}
    raw.pop(dropped, None)
    text = yaml.safe_dump(raw)
    path = folder / f"{abs(hash(text))}.yml"
    path.write_text(text)
    try:
        spec = load_spec(path)
    except ConfigError as error:
        one_line(error)
        return
    for split in spec.splits:
        with contextlib.suppress(DataError):
            resolve_layout(spec, folder, split)
    with contextlib.suppress(ConfigError):
        spec.table(load_classes("street7"))
