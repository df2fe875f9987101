"""Rendered streets: exact depth, all classes, deterministic bytes per seed, files in the published layouts."""

import hashlib
import json

import cv2
import numpy as np
import pytest
from PIL import Image

import make_streets
from streets.canvas import ROAD, SKY, VEGETATION, Camera, Canvas
from streets.objects import place
from streets.pictures import BASELINE, render
from streets.sprites import bare_tree

SIXTEEN = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 17, 19, 21}
SIZE = "96x72"


def make(out, *options, count=4, seed=3):
    return make_streets.main(["--out", str(out), "--count", str(count), "--size", SIZE, "--seed", str(seed), *options])


def digests(folder):
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.*"))}


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    out = tmp_path_factory.mktemp("streets") / "streets"
    assert make(out, "--workers", "2") == 0
    return out


def test_same_seed_same_bytes_for_any_number_of_workers(streets, tmp_path):
    assert make(tmp_path / "alone", "--workers", "1") == 0
    assert digests(tmp_path / "alone") == digests(streets)


def test_another_seed_gives_other_streets(streets, tmp_path):
    assert make(tmp_path / "other", count=1, seed=4) == 0
    assert (tmp_path / "other/RGB/0000000.png").read_bytes() != (streets / "RGB/0000000.png").read_bytes()


def test_second_run_keeps_existing_files(streets):
    before = {p: p.stat().st_mtime_ns for p in streets.rglob("*.png")}
    assert make(streets) == 0
    assert {p: p.stat().st_mtime_ns for p in streets.rglob("*.png")} == before


def test_synthia_layout(streets):
    for name in ("0000000.png", "0000003.png"):
        image, label = Image.open(streets / "RGB" / name), Image.open(streets / "parsed_LABELS" / name)
        depth = cv2.imread(str(streets / "Depth" / name), cv2.IMREAD_UNCHANGED)
        assert (image.mode, label.mode, depth.dtype) == ("RGB", "L", np.uint16)
        assert image.size == label.size == depth.shape[::-1] == (96, 72)
        assert (depth[np.asarray(label) == SKY] == 65535).all()


def test_all_sixteen_classes_occur():
    seen = set()
    for index in range(12):
        seen |= set(np.unique(render(np.random.default_rng([5, index]), 160, 120).label).tolist())
    assert seen >= SIXTEEN


@pytest.mark.parametrize("index", range(3))
def test_depth_of_the_road_is_that_of_the_ground_plane(index):
    """A ray that falls by b per unit of depth meets the ground plane y = 0 at depth height / b."""
    picture = render(np.random.default_rng([6, index]), 160, 120)
    u0, v0 = picture.camera.center
    v, u = np.mgrid[:120, :160]
    rays = np.stack([(u - u0) / picture.camera.focal, (v0 - v) / picture.camera.focal, np.ones_like(u)], -1)
    fall = -(rays @ picture.camera.rotation)[..., 1]
    road = (picture.label == ROAD) & (fall > 0)
    assert road.sum() > 1000
    np.testing.assert_allclose(picture.depth[road], picture.camera.height / fall[road], rtol=1e-4)


def test_nearer_polygons_hide_farther_ones():
    canvas = Canvas(Camera(40, 30, focal=30.0, height=0.0), np.array([0.0, 1.0, 0.0]), 1.0, 0.0)
    for depth, label in ((4.0, 8), (9.0, 2), (6.0, 5)):
        canvas.poly([(-5, -5, depth), (5, -5, depth), (5, 5, depth), (-5, 5, depth)], (9, 9, 9), label)
    assert canvas.label[15, 20] == 8
    assert 1 / canvas.inverse[15, 20] == pytest.approx(4.0, rel=1e-5)


def test_cityscapes_layout_gives_the_depth_back(tmp_path):
    assert make(tmp_path, "--style", "real", "--val-count", "1", count=1) == 0
    (image,) = (tmp_path / "leftImg8bit/train").rglob("*_leftImg8bit.png")
    stem = f"{image.parent.name}/{image.name.removesuffix('_leftImg8bit.png')}"
    labels = np.asarray(Image.open(tmp_path / f"gtFine/train/{stem}_gtFine_labelIds.png"))
    assert set(np.unique(labels)) <= {7, 8, 11, 12, 13, 17, 19, 20, 21, 23, 24, 25, 26, 28, 32, 33}
    code = cv2.imread(str(tmp_path / f"disparity/train/{stem}_disparity.png"), cv2.IMREAD_UNCHANGED).astype(float)
    camera = json.loads((tmp_path / f"camera/train/{stem}_camera.json").read_text())
    assert (code[labels == 23] == 0).all()
    truth = render(np.random.default_rng([3, 0]), 96, 72, "real").depth
    near = (code > 0) & (truth < 30)
    depth = camera["extrinsic"]["baseline"] * camera["intrinsic"]["fx"] / ((code[near] - 1) / 256)
    half_a_step = depth**2 / (BASELINE * camera["intrinsic"]["fx"] * 256)
    assert (np.abs(depth - truth[near]) <= half_a_step).all()
    assert list((tmp_path / "leftImg8bit/val").rglob("*.png"))


def test_mapillary_layout_has_jpegs_of_many_sizes(tmp_path):
    assert make(tmp_path, "--layout", "mapillary", "--val-count", "1", count=5) == 0
    images = sorted((tmp_path / "training/images").glob("*.jpg"))
    assert len({Image.open(p).size for p in images}) > 1
    for image in images:
        label = Image.open(tmp_path / "training/labels" / f"{image.stem}.png")
        assert label.size == Image.open(image).size
        assert np.asarray(label).max() <= 65


def test_a_folder_of_another_version_is_refused(tmp_path, capsys):
    assert make(tmp_path, count=0) == 0
    manifest = tmp_path / "streets.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 1}))
    assert make(tmp_path, count=0) == 2
    assert "made by another version of this tool; remove the folder" in capsys.readouterr().err


def test_twigs_let_the_sky_through_and_are_vegetation():
    rng = np.random.default_rng(0)
    canvas = Canvas(Camera(64, 64, 64.0, 1.5), np.array([0, 1, 0]), 1.0, 0.0)
    canvas.color[:] = 250
    place(canvas, bare_tree(rng, 8.0, np.array([60.0, 50, 40])), 0.0, 12.0, 0.0, 0.0)
    tree = canvas.label == VEGETATION
    tone = canvas.color[tree].mean(-1)
    assert (canvas.color[~tree & (canvas.inverse == 0)] == 250).all()
    assert (tone < 90).any()  # branches
    assert ((tone > 120) & (tone < 245)).mean() > 0.3  # twigs in front of the sky
    assert np.allclose(canvas.inverse[tree], 1 / 12, rtol=0.05)
