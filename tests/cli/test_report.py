"""scripts/report.py: page of a tiny run, of several, and of one without its data; rendering in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import pipeline
import report
from helpers import tiny_data

pytest.importorskip("matplotlib", reason="the extra report is not installed")
pytest.importorskip("jinja2", reason="the extra report is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = (380, 1280, 1920)
STAGES = ["source_only:TRAIN.EARLY_STOP=6", "TEST.MODE=best", "TRAIN.EVAL_EVERY=0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root with all stages of the quick protocol; training images have labels, and every checkpoint is scored."""
    root = tiny_data.make_data(tmp_path_factory.mktemp("report"))
    for index in range(tiny_data.COUNT):
        labels = np.asarray(tiny_data.CAMVID_IDS, np.uint8)[tiny_data.picture(index, 1)[1]]
        tiny_data.write_png(root / "CamVid" / "trainannot" / f"{index:04d}.png", labels)
    assert pipeline.main(tiny_data.command_line(root, "quick", *STAGES)) == 0
    return root


@pytest.fixture(scope="module")
def page(place: Path) -> Path:
    out = place / "report.html"
    options = ["--figures", str(place / "figures"), "--latex", str(place / "table.tex")]
    assert report.main([str(place / "exp/quick"), "--out", str(out), *options]) == 0
    return out


class Seen(HTMLParser):
    """Parsed page: addresses that it loads or links to, images without alternative text, tags, text."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.without_alt: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self.addresses += [str(attributes[key]) for key in ("src", "href", "srcset") if attributes.get(key)]
        if tag == "img" and not attributes.get("alt"):
            self.without_alt.append(str(attributes))

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(page: Path) -> Seen:
    parser = Seen()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def test_pipeline_exports_report_assets(place: Path) -> None:
    exp = place / "exp/quick"
    results = json.loads((exp / "results.json").read_text())
    assert [stage["name"] for stage in results["stages"]] == ["source_only", "daf", "isl", "rank", "ida"]
    gallery = json.loads((exp / "gallery/gallery.json").read_text())
    assert gallery["missing"] == []
    assert gallery["credit"].startswith("CamVid")
    assert len(gallery["examples"]) == 6
    for row in gallery["examples"]:
        assert list(row["stages"]) == ["source_only", "daf", "isl", "ida"]
        assert "depth" in row["stages"]["ida"]
        assert "depth" not in row["stages"]["source_only"]
        files = [row["image"], row["truth"], *[f for drawn in row["stages"].values() for f in drawn.values()]]
        assert all((exp / "gallery" / file).is_file() for file in files)
    scores = [entry["score"] for end in ("easiest", "hardest") for entry in gallery["ranking"][end]]
    assert scores == sorted(scores)
    assert sum(gallery["label_shares"].values()) == pytest.approx(gallery["labels"]["kept"])


def test_gallery_is_rebuilt_only_after_a_change(place: Path) -> None:
    file = place / "exp/quick/gallery/gallery.json"
    before = file.stat().st_mtime_ns
    assert pipeline.main(tiny_data.command_line(place, "quick", *STAGES)) == 0
    assert file.stat().st_mtime_ns == before
    os.utime(place / "CamVid/trainannot/0000.png")  # ground truth of the pseudo labels: may have changed
    assert pipeline.main(tiny_data.command_line(place, "quick", *STAGES)) == 0
    assert file.stat().st_mtime_ns > before


def test_page_is_complete_and_self_contained(page: Path, place: Path) -> None:
    parsed = seen(page)
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert "script" not in parsed.tags
    assert "url(" not in page.read_text()
    assert parsed.without_alt == []
    assert {"main", "header", "nav", "caption", "details", "h1", "h2"} <= set(parsed.tags)
    results = json.loads((place / "exp/quick/results.json").read_text())
    for stage in ("source_only", "daf", "isl", "ida"):
        assert f"{results['results'][stage]['miou']:.1f}" in parsed.text
        assert f"{results['oracle'][stage]['miou']:.1f}" in parsed.text
    for words in (
        "quick (none of the paper's)",
        "1234",
        "best (oracle)",
        "CC BY-NC",
        "easiest images",
        "digest",
        "coverage",
    ):
        assert words in parsed.text
    assert str(place) not in page.read_text()  # no local path


def test_figures_and_table_for_a_paper(page: Path, place: Path) -> None:
    names = ["quick_classes", "quick_miou", "quick_losses", "quick_ranking", "quick_labels", "grid"]
    assert {path.name for path in (place / "figures").iterdir()} == {f"{n}.{s}" for n in names for s in ("pdf", "png")}
    table = (place / "table.tex").read_text()
    assert table.count(r"\toprule") == table.count(r"\bottomrule") == 1
    rows = [line for line in table.splitlines() if "&" in line]
    assert {line.count("&") for line in rows} == {8}  # mIoU and seven classes


def test_several_experiments_side_by_side(page: Path, place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(place / "exp/quick", other)
    config = other / "ida/config.yml"
    config.write_text(config.read_text().replace("LAMBDA_ADV_MAIN: 0.001", "LAMBDA_ADV_MAIN: 0.002"))
    out = tmp_path / "two.html"
    assert report.main([str(place / "exp/quick"), str(other), "--out", str(out), "--examples", "2"]) == 0
    text = seen(out).text
    assert "ida: TRAIN.LAMBDA_ADV_MAIN" in text
    assert "0.002" in text
    assert text.count("ground truth") == 2  # two images, each shown once
    assert "other: DAF+IDA" in text


def test_experiments_of_one_name_get_separate_figures(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / "a" / "ep1", tmp_path / "b" / "ep1"]
    for folder in folders:
        shutil.copytree(place / "exp/quick", folder, ignore=shutil.ignore_patterns("*.pth", "gallery"))
    out, figures = tmp_path / "two.html", tmp_path / "figures"
    line = [*map(str, folders), "--out", str(out), "--figures", str(figures), "--latex", str(tmp_path / "t.tex")]
    assert report.main(line) == 0
    written = {file.name for file in figures.iterdir()}
    kinds = ("classes", "miou", "losses", "ranking")
    assert written == {f"{of}_ep1_{kind}.{s}" for of in "ab" for kind in kinds for s in ("pdf", "png")}
    assert f"figures: {len(written)} files" in capsys.readouterr().out
    assert {"a/ep1", "b/ep1"} <= set(re.findall("[ab]/ep1", seen(out).text))
    assert re.search(r"\\midrule\n b/ep1 *&", (tmp_path / "t.tex").read_text())


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/ep1", "x/ep2"], ["ep1", "ep2"]),
        (["x/ep1", "y/ep1", "y/ep2"], ["x/ep1", "y/ep1", "ep2"]),
        (["m/x/ep1", "n/x/ep1"], ["m/x/ep1", "n/x/ep1"]),
        (["x/ep1", "y/ep1", "z/x_ep1"], ["x/ep1", "y/ep1", "z/x_ep1"]),  # x/ep1 and x_ep1 would share file names
    ],
)
def test_experiment_names_are_shortest_distinct_paths(paths: list[str], names: list[str], tmp_path: Path) -> None:
    from reporting.experiment import distinct_names

    distinct = distinct_names([tmp_path / path for path in paths])
    assert len({name.replace("/", "_") for name in distinct}) == len(paths)
    assert [
        name if len(name) < len(expected) else expected for name, expected in zip(distinct, names, strict=True)
    ] == names


def test_a_folder_given_twice_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [str(place / "exp/quick"), str(place / "exp/../exp/quick"), "--out", str(tmp_path / "page.html")]
    assert report.main(line) == 2
    assert "given twice" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "page.html").exists()


def test_nan_ranking_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Earlier versions sorted NaN scores, which gives no order."""
    copy = tmp_path / "quick"
    shutil.copytree(place / "exp/quick", copy, ignore=shutil.ignore_patterns("*.pth", "gallery"))
    table = (copy / "rank/ranking.csv").read_text().splitlines()
    name, _, *rest = table[3].split(",")
    (copy / "rank/ranking.csv").write_text("\n".join([*table[:3], ",".join([name, "nan", *rest]), *table[4:]]) + "\n")
    assert report.main([str(copy), "--out", str(tmp_path / "page.html")]) == 2
    assert f"the score of {name} is not finite" in capsys.readouterr().err.strip().splitlines()[-1]


def test_published_rows_and_differences(place: Path, tmp_path: Path) -> None:
    from reporting.experiment import read_experiment
    from reporting.published import PROTOCOLS, paper_rows
    from reporting.table import DIFFERENCE, difference_class, result_table, shown

    copy = tmp_path / "ep2"
    shutil.copytree(place / "exp/quick", copy)
    for config in copy.glob("*/config.yml"):
        config.write_text(re.sub("EXP_NAME: .*", "EXP_NAME: ep2", config.read_text()))
    table = result_table(read_experiment(copy))
    rows = {row.label: row.values for row in table.rows}
    published = paper_rows(PROTOCOLS["EP2"])["DAF+IDA"]
    ours, differences = rows["DAF+IDA, best (oracle)"], rows["ours against the paper's DAF+IDA"]
    for name, value, difference in zip(table.header, ours, differences, strict=True):
        if value is not None:
            assert difference == pytest.approx(value - published[name])  # type: ignore[operator]
    assert "paper: CTRL" in rows
    assert (shown(2.04, DIFFERENCE), shown(-0.06, DIFFERENCE), shown(-0.04, DIFFERENCE)) == ("+2.0", "−0.1", "0.0")
    assert [difference_class(value) for value in (2.0, -0.06, -0.04, None)] == ["better", "worse", "even", "even"]


def test_missing_files_are_reported_on_the_page(place: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(
        place / "exp/quick", bare, ignore=shutil.ignore_patterns("*.pth", "gallery", "metrics.jsonl", "ida")
    )
    (bare / "isl/finished.json").unlink()
    assert report.main([str(bare), "--out", str(tmp_path / "bare.html")]) == 0
    text = seen(tmp_path / "bare.html").text
    for words in ("no gallery", "not finished", "No pictures"):
        assert words in text


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for folder, words in ((tmp_path / "none", "no such folder"), (tmp_path / "empty", "no stage of an experiment")):
        assert report.main([str(folder), "--out", str(tmp_path / "page.html")]) == 2
        assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "page.html").exists()


def luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_have_contrast_in_light_and_dark() -> None:
    """WCAG 2.2: contrast of at least 4.5:1 for text and 3:1 for lines and bars."""
    from reporting import figures
    from reporting.page import TEMPLATES

    blocks = re.findall(r":root \{(.*?)\}", (TEMPLATES / "report.css").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block, look in zip(blocks, (figures.ON_LIGHT, figures.ON_DARK), strict=True):
        color = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        color["figure"] = look.ink
        pairs = [("better", "better-back"), ("worse", "worse-back"), ("ink", "warn"), ("figure", "page")]
        for text, back in [*pairs, *((t, b) for t in ("ink", "faint", "link") for b in ("page", "card"))]:
            high, low = sorted((luminance(color[text]), luminance(color[back])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, back)
        for drawn in look.colors:  # lines and bars: 3 to 1
            high, low = sorted((luminance(drawn), luminance(color["page"])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 3, drawn


@pytest.fixture
def browser(tmp_path: Path) -> list[str]:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"no browser here ({', '.join(BROWSERS)})")
    return [
        executable,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--allow-file-access-from-files",
        "--virtual-time-budget=10000",
    ]


def test_in_a_browser_without_network(page: Path, browser: list[str], tmp_path: Path) -> None:
    """No console message, no network request, and no horizontal overflow at three widths."""
    frames = "".join(f'<iframe src="{page.as_uri()}" width="{width}" height="900"></iframe>' for width in WIDTHS)
    measure = (
        "<script>addEventListener('load', () => {"
        "document.title = [...document.querySelectorAll('iframe')].map(f => {"
        "const root = f.contentDocument.documentElement;"
        "const broken = [...f.contentDocument.images].filter(i => i.complete && !i.naturalWidth).length;"
        "return `${f.width}:${root.scrollWidth}:${broken}`}).join(' ')})</script>"
    )
    (tmp_path / "frames.html").write_text(f"<!DOCTYPE html><title>none</title>{frames}{measure}")
    log = tmp_path / "net.json"
    command = [*browser, f"--log-net-log={log}", "--dump-dom", (tmp_path / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    (title,) = re.findall("<title>(.*?)</title>", done.stdout)
    for measured, width in zip(title.split(), WIDTHS, strict=True):
        asked, scroll, broken = map(int, measured.split(":"))
        assert asked == width
        assert scroll <= width
        assert broken == 0
    # The browser's own requests have no origin; the page must make none.
    asked_for = re.findall(r'"initiator":"([^"]*)"[^{}]*"url":"(https?:[^"]*)"', log.read_text())
    assert [url for initiator, url in asked_for if initiator != "not an origin"] == []
