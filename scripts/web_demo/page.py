"""The demo page in Gradio: layout, events, and a server for this machine alone. Needs the extra `demo`."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from advent.errors import ConfigError, DataError
from web_demo.environment import HOST
from web_demo.predictor import Answer, Predictor
from web_demo.results import legend_html, line_html
from web_demo.uploads import LARGEST_FILE, LONGEST_VIDEO, MOST_FRAMES, check_size

ASSETS = Path(__file__).parent / "assets"
ONE_AT_A_TIME = "predict"  # events of this group run one after the other
INTRODUCTION = f"""# Street scenes: classes, depth, uncertainty

Drop a photograph, or a video of at most {LONGEST_VIDEO} seconds ({MOST_FRAMES} frames of it are predicted). Files have
at most {LARGEST_FILE // 2**20} MB. Nothing leaves this machine."""


def build_page(predictor: Predictor) -> gr.Blocks:
    """The page. Every component below `line` belongs to the result and is hidden until there is one."""
    names = list(predictor.choices)
    with gr.Blocks(title="Depth-guided adaptation", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row(equal_height=False):
            upload = gr.File(label="Photograph or video", height=140, elem_id="upload", min_width=300)
            choice = gr.Dropdown(names, value=names[0], label="Checkpoint", elem_id="checkpoint", min_width=300)
        line = gr.HTML(elem_id="line")
        current = gr.State(None)  # the uploaded file of this browser tab
        refused = gr.Textbox(visible="hidden", elem_id="refused", label="Refused file")  # written by upload.js
        with gr.Column(visible=False) as shown:
            with gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=300):
                    slider = gr.ImageSlider(
                        label="Image | classes", buttons=["fullscreen"], format="webp", max_height=560
                    )
                with gr.Column(scale=1, min_width=300):
                    legend = gr.HTML(elem_id="legend")
            with gr.Row(equal_height=False):
                depth = _picture("Depth (bright is near)")
                entropy = _picture("Entropy")
            with gr.Row(visible=False, equal_height=False) as clips:
                players = [_player(f"{name} (video)") for name in ("Classes", "Depth", "Entropy")]
        outputs = [line, shown, slider, legend, depth, entropy, clips, *players]

        def show(answer: Answer) -> list[Any]:
            """The updates of `outputs`."""
            result = answer.result
            if result is None:
                return [
                    line_html(answer.line, error=True),
                    gr.update(visible=False),
                    *[None] * 4,
                    gr.update(),
                    *[None] * 3,
                ]
            clip = result.videos.get
            return [
                line_html(answer.line),
                gr.update(visible=True),
                (result.photo, result.overlay),
                legend_html(result.shares),
                gr.update(value=result.depth, visible=result.depth is not None),
                gr.update(value=result.entropy, label=f"Entropy (bright is uncertain), mean {result.mean_entropy:.2f}"),
                gr.update(visible=bool(result.videos)),
                clip("overlay"),
                gr.update(value=clip("depth_color"), visible="depth_color" in result.videos),
                clip("entropy"),
            ]

        def predict(file: str | None, name: str, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
            if file is None:
                return [gr.update()] * len(outputs)

            def report(done: int, total: int) -> None:
                progress((done, total), desc="Predicting", unit="frames")

            return show(predictor.answer(Path(file), name, report))

        def refuse(record: str) -> list[Any]:
            name, size = json.loads(record)[:2]
            try:
                check_size(str(name), int(size))
            except DataError as error:
                return show(Answer(str(error)))
            return [gr.update()] * len(outputs)

        group: dict[str, Any] = {"concurrency_id": ONE_AT_A_TIME, "concurrency_limit": 1, "api_visibility": "private"}
        upload.upload(lambda file: file, upload, current, api_visibility="private", queue=False).then(
            predict, [current, choice], outputs, show_progress_on=[line], **group
        ).then(lambda: None, None, upload, api_visibility="private", queue=False)
        choice.input(predict, [current, choice], outputs, show_progress_on=[line], **group)
        refused.change(refuse, refused, outputs, api_visibility="private", queue=False)
    return page


def _picture(label: str) -> gr.Image:
    return gr.Image(label=label, interactive=False, format="webp", buttons=["fullscreen"], min_width=300)


def _player(label: str) -> gr.Video:
    return gr.Video(label=label, interactive=False, buttons=[], min_width=300, loop=True)


@contextmanager
def served(page: gr.Blocks, port: int) -> Iterator[str]:
    """Serve the page on the loopback address inside the context; yields its URL.

    Raises ConfigError if the port cannot be used.
    """
    _require_free(port)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks its own server whether it runs
    style = (ASSETS / "style.css").read_text(encoding="utf-8")
    script = (ASSETS / "upload.js").read_text(encoding="utf-8").replace("LARGEST_FILE", str(LARGEST_FILE))
    _, url, _ = page.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        inbrowser=False,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        max_file_size=LARGEST_FILE,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=style,
        head=f"<script>{script}</script>",
    )
    try:
        yield url
    finally:
        page.close(verbose=False)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "ports are 1 to 65535"
            raise ConfigError(f"--port {port}: cannot be used ({reason}); choose another one") from None
