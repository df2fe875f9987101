"""scripts/demo.py: the page in headless Chromium by real uploads, requests of page and server, one-line errors."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from PIL import Image

import demo
from helpers import tiny_data
from helpers.tiny_checkpoint import write_stage

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 240_000  # a busy machine takes minutes
# Runs demo.py and writes every address that Python resolves or connects to into a file.
RECORDER = """
import json, os, runpy, sys
record = open(sys.argv[1], "a", buffering=1)
def hook(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        record.write(json.dumps(str(arguments[0] if event == "socket.getaddrinfo" else arguments[1][0])) + "\\n")
sys.addaudithook(hook)
sys.argv = sys.argv[2:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))  # as `python scripts/demo.py`
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line that demo.py prints before it exits with 2."""
    assert demo.main(list(options)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_without_gradio_one_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stage(tmp_path / "run/daf")
    for name in [name for name in sys.modules if name == "web_demo.page" or name.partition(".")[0] == "gradio"]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "gradio":
                raise ModuleNotFoundError("No module named 'gradio'", name="gradio")

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    monkeypatch.setattr(os, "environ", os.environ.copy())
    line = refused(capsys, "--checkpoints", str(tmp_path), "--device", "cpu")
    assert line == "scripts/demo.py: error: the demo page needs the package gradio; pip install -e '.[demo]'"


def test_wrong_ports_folders_and_devices_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--port 70000: ports are 1 to 65535" in refused(capsys, "--port", "70000")
    (tmp_path / "empty").mkdir()
    assert "no checkpoint in" in refused(capsys, "--checkpoints", str(tmp_path / "empty"))
    write_stage(tmp_path / "run/daf")
    assert "device" in refused(capsys, "--checkpoints", str(tmp_path), "--device", "gpu5")


def test_a_port_in_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    monkeypatch.setattr(os, "environ", os.environ.copy())
    write_stage(tmp_path / "run/daf")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused(capsys, "--port", port, "--checkpoints", str(tmp_path), "--device", "cpu")
    assert f"--port {port}: cannot be used (Address already in use); choose another one" in line


@dataclass
class Browser:
    """The open page, the addresses that it requested, and what the server connected to."""

    page: Any
    url: str
    contacts: Path
    requests: list[str] = field(default_factory=list)

    def upload(self, file: Path) -> str:
        """Upload a file; returns the line that appears."""
        before = self.line()
        self.page.set_input_files("#upload input[type=file]", str(file))
        return self.next_line(before)

    def line(self) -> str:
        found = self.page.query_selector("#line p")
        return "" if found is None else str(found.inner_text())

    def next_line(self, before: str) -> str:
        script = "before => (document.querySelector('#line p')?.innerText ?? '') !== before"
        self.page.wait_for_function(script, arg=before, timeout=WAIT_MS)
        return self.line()

    def choose(self, name: str) -> None:
        self.page.click("#checkpoint input")
        self.page.get_by_role("option", name=name).click()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The page of a real `python scripts/demo.py`, with a working and a broken checkpoint, in Chromium."""
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: the demo page is not tested in a browser")
    folder, port = tmp_path_factory.mktemp("demo"), free_port()
    write_stage(folder / "a_working/daf")
    broken = write_stage(folder / "b_broken/daf")
    broken.write_bytes(broken.read_bytes()[:1000])
    contacts = folder / "contacts"
    proxy = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://192.0.2.1:9")  # must not be asked
    environment = {
        **os.environ,
        **proxy,
        "NO_PROXY": "",
        "no_proxy": "",
        "GRADIO_SHARE": "True",
        "PYTHONPATH": str(ROOT),
    }
    folders = [str(folder / "a_working"), str(folder / "b_broken")]
    command = [sys.executable, "-c", RECORDER, str(contacts), str(ROOT / "scripts/demo.py")]
    command += ["--port", str(port), "--device", "cpu", "--checkpoints", *folders]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        try:
            assert server.stdout is not None
            announced = server.stdout.readline()
            match = re.fullmatch(
                r"demo page with 2 checkpoints: (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", announced
            )
            assert match, announced + (folder / "log").read_text()
            with api.sync_playwright() as playwright:
                chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=WAIT_MS)
                page = chromium.new_page()
                page.set_default_timeout(WAIT_MS)
                opened = Browser(page, match[1], contacts)
                page.on("request", lambda request: opened.requests.append(request.url))
                page.on("websocket", lambda websocket: opened.requests.append(websocket.url))
                page.goto(match[1], timeout=WAIT_MS)
                page.wait_for_selector("#upload input[type=file]", state="attached", timeout=WAIT_MS)
                yield opened
                chromium.close()
            server.terminate()
            assert server.wait(60) == 0
        finally:
            server.kill()
            server.wait()


def photograph(path: Path) -> Path:
    Image.fromarray(tiny_data.picture(1, 1)[0]).resize((320, 240)).save(path)
    return path


def test_a_photograph_gives_classes_depth_and_entropy(browser: Browser, tmp_path: Path) -> None:
    line = browser.upload(photograph(tmp_path / "straße 1.jpg"))
    assert re.match(r"straße 1\.jpg: 320 x 240 pixels; predicted in [\d.]+ s on cpu by .*a_working/daf$", line)
    page = browser.page
    shares = [float(text.rstrip(" %")) for text in page.locator("#legend .share").all_inner_texts() if "<" not in text]
    assert sum(shares) == pytest.approx(100, abs=1)
    page.wait_for_function(
        "() => [...document.querySelectorAll('img')].filter(i => i.offsetParent && i.naturalWidth === 320).length >= 4"
    )
    text = page.inner_text("body")
    for label in ("Image | classes", "Depth (bright is near)", "Entropy (bright is uncertain), mean 0."):
        assert label in text


def test_a_video_can_be_played(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "drive.mp4"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 5.0, (64, 48))
    for index in range(5):
        writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    writer.release()
    assert browser.upload(file).startswith("drive.mp4: 64 x 48 pixels, 5 frames of 1.0 s; predicted in ")
    browser.page.wait_for_function(
        "() => { const shown = [...document.querySelectorAll('video')].filter(v => v.offsetParent);"
        " return shown.length === 3 && shown.every(v => v.videoWidth === 64 && Math.abs(v.duration - 1) < 0.3); }"
    )


def test_wrong_files_are_refused_in_one_line(browser: Browser, tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("not a photograph")
    assert browser.upload(text).startswith("text.jpg: cannot be read as an image (unknown format)")
    assert not browser.page.is_visible("#legend table")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(2000))
    assert browser.upload(broken).startswith("broken.mp4: no video frame can be read")
    huge = tmp_path / "huge.png"
    Image.new("1", (20_000, 20_000)).save(huge)
    assert "pixels exceed the limit of 128,000,000" in browser.upload(huge)


@pytest.mark.parametrize("dropped", [False, True])
def test_a_file_above_the_limit_is_refused_before_it_is_uploaded(browser: Browser, dropped: bool) -> None:
    """The page makes a file of 101 MB itself: Playwright would have to transfer it."""
    before, sent = browser.line(), len(browser.requests)
    browser.page.evaluate(
        """dropped => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(101 * 2 ** 20)], dropped ? "b.mp4" : "a.mp4"));
            const input = document.querySelector("#upload input[type=file]");
            if (dropped) {
                const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
                input.parentElement.dispatchEvent(event);
            } else {
                input.files = transfer.files;
                input.dispatchEvent(new Event("change", { bubbles: true }));
            }
        }""",
        dropped,
    )
    line = browser.next_line(before)
    assert line.startswith(f"{'b' if dropped else 'a'}.mp4: 101 MB exceed the limit of 100 MB; scale or cut it first")
    assert not [url for url in browser.requests[sent:] if "/upload" in urlsplit(url).path]


def test_an_unreadable_checkpoint_is_one_line_and_the_other_one_still_works(browser: Browser, tmp_path: Path) -> None:
    before = browser.upload(photograph(tmp_path / "second.png"))
    assert before.startswith("second.png: 320 x 240")
    browser.choose("b_broken")
    after = browser.next_line(before)
    assert "model_6.pth: not a readable PyTorch checkpoint" in after
    browser.choose("a_working")
    assert browser.next_line(after).startswith("second.png: 320 x 240")


def test_no_request_leaves_the_machine(browser: Browser) -> None:
    """Those of the browser (fonts, scripts, analytics), and connections and name look-ups of the server."""
    hosts = {urlsplit(url).hostname for url in browser.requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    contacts = {json.loads(line) for line in browser.contacts.read_text().splitlines()}
    assert contacts <= {"127.0.0.1", "localhost", "::1"}
    assert "127.0.0.1" in contacts  # Gradio asks its own server; else nothing was recorded


def test_the_page_fits_narrow_and_wide_windows(browser: Browser, tmp_path: Path) -> None:
    browser.upload(photograph(tmp_path / "third.png"))
    for width in (390, 1280):
        browser.page.set_viewport_size({"width": width, "height": 900})
        browser.page.wait_for_function(
            "width => window.innerWidth === width && document.documentElement.scrollWidth <= width"
            " && [...document.querySelectorAll('#legend table, img')]"
            ".every(element => element.getBoundingClientRect().right <= width)",
            arg=width,
        )
