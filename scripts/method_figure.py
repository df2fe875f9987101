"""Draw the method's overview (DAF -> ISL -> ranking -> IDA) as SVG, for light and dark pages.

    python scripts/method_figure.py --out docs

Writes `method-light.svg` and `method-dark.svg`. Needs Python only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 880, 484
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Theme:
    """Colours of one variant. Each fill is readable under `text`."""

    text: str
    muted: str
    line: str
    panel: str
    panel_edge: str
    plain: str
    source: str
    target: str
    easy: str
    hard: str


LIGHT = Theme(
    text="#1f2328", muted="#59636e", line="#57606a", panel="#f6f8fa", panel_edge="#d1d9e0", plain="#ffffff",
    source="#cfe3fb", target="#ffe3c2", easy="#cdeccf", hard="#ffd3d0",
)  # fmt: skip
DARK = Theme(
    text="#e6edf3", muted="#9da7b1", line="#9da7b1", panel="#161b22", panel_edge="#3d444d", plain="#212830",
    source="#17406d", target="#6b4310", easy="#1c5330", hard="#742a2a",
)  # fmt: skip
THEMES = {"light": LIGHT, "dark": DARK}


@dataclass
class Canvas:
    """SVG elements in drawing order. Coordinates are pixels of the view box, origin at the top left."""

    theme: Theme
    parts: list[str] = field(default_factory=list)

    def panel(self, x: float, y: float, width: float, height: float, title: str, script: str) -> None:
        """A stage: a frame with its title, and the script that runs it at the right."""
        self._rect(x, y, width, height, self.theme.panel, self.theme.panel_edge, radius=10)
        self.text(x + 14, y + 24, title, size=15, weight="600", anchor="start")
        self.text(x + width - 14, y + 24, script, size=12, color=self.theme.muted, anchor="end")

    def box(self, x: float, y: float, width: float, height: float, lines: Sequence[str], fill: str) -> None:
        """A rounded box with centred lines of text."""
        self._rect(x, y, width, height, fill, self.theme.line, radius=6)
        first = y + height / 2 + 4.5 - 8.5 * (len(lines) - 1)
        for index, line in enumerate(lines):
            self.text(x + width / 2, first + 17 * index, line)

    def bar(self, x: float, bottom: float, width: float, height: float, fill: str) -> None:
        """A histogram bar with its base at `bottom`."""
        self._rect(x, bottom - height, width, height, fill, self.theme.line, radius=1)

    def text(
        self,
        x: float,
        y: float,
        content: str,
        size: int = 13,
        color: str = "",
        weight: str = "400",
        anchor: str = "middle",
    ) -> None:
        """One line of text, its baseline at y."""
        style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{color or self.theme.text}"'
        self.parts.append(f'<text x="{x:g}" y="{y:g}" {style}>{escape(content)}</text>')

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> None:
        """A line through points with a head at the last one; dashed for losses (gradients)."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        style = f'fill="none" stroke="{self.theme.line}" stroke-width="1.6"{dash} marker-end="url(#head)"'
        self.parts.append(f'<polyline points="{path}" {style}/>')

    def line(self, x: float, top: float, bottom: float) -> None:
        """A dashed vertical line."""
        style = f'stroke="{self.theme.text}" stroke-width="1.4" stroke-dasharray="5 4"'
        self.parts.append(f'<line x1="{x:g}" y1="{top:g}" x2="{x:g}" y2="{bottom:g}" {style}/>')

    def times(self, x: float, y: float) -> None:
        """The product of two inputs."""
        style = f'fill="{self.theme.plain}" stroke="{self.theme.line}" stroke-width="1.2"'
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="12" {style}/>')
        self.text(x, y + 5.5, "×", size=17)

    def svg(self, title: str) -> str:
        """The whole file."""
        head = (
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0 8 4 0 8z" fill="{self.theme.line}"/></marker>'
        )
        opening = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'font-family="{FONT}" role="img">'
        )
        return "\n".join(
            [opening, f"<title>{escape(title)}</title>", f"<defs>{head}</defs>", *self.parts, "</svg>", ""]
        )

    def _rect(self, x: float, y: float, width: float, height: float, fill: str, edge: str, radius: float) -> None:
        where = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"'
        self.parts.append(f'<rect {where} fill="{fill}" stroke="{edge}" stroke-width="1.2"/>')


def draw(theme: Theme) -> str:
    """The figure as SVG text."""
    canvas = Canvas(theme)
    _daf(canvas)
    _isl(canvas, 10)
    _ranking(canvas, 310)
    _ida(canvas, 596)
    canvas.arrow((130, 222), (130, 256))
    canvas.text(142, 244, "weights", color=theme.muted, anchor="start")
    canvas.arrow((285, 362), (309, 362))
    canvas.arrow((571, 362), (595, 362))
    return canvas.svg("Method: DAF, iterative self-learning, depth-aware ranking, intra-domain adaptation")


def _daf(canvas: Canvas) -> None:
    theme = canvas.theme
    canvas.panel(10, 10, 860, 212, "Stage 0: DAF, depth-guided adversarial training", "train.py")
    canvas.box(22, 62, 150, 46, ["Source (synthetic)", "image, labels, depth"], theme.source)
    canvas.box(22, 130, 150, 46, ["Target (real)", "image only"], theme.target)
    canvas.box(206, 84, 128, 70, ["Segmentation", "network with", "depth head"], theme.plain)
    canvas.box(370, 66, 124, 38, ["probabilities p"], theme.plain)
    canvas.box(370, 134, 124, 38, ["inverse depth d"], theme.plain)
    canvas.times(526, 119)
    canvas.box(560, 96, 134, 46, ["depth-aware map", "−p log p · d"], theme.plain)
    canvas.box(724, 96, 132, 46, ["Discriminator:", "source or target?"], theme.plain)
    canvas.arrow((172, 85), (188, 85), (188, 108), (205, 108))
    canvas.arrow((172, 153), (188, 153), (188, 130), (205, 130))
    canvas.arrow((334, 108), (352, 108), (352, 85), (369, 85))
    canvas.arrow((334, 130), (352, 130), (352, 153), (369, 153))
    canvas.arrow((494, 85), (526, 85), (526, 106))
    canvas.arrow((494, 153), (526, 153), (526, 132))
    canvas.arrow((538, 119), (559, 119))
    canvas.arrow((694, 119), (723, 119))
    canvas.arrow((97, 62), (97, 50), (432, 50), (432, 65), dashed=True)
    canvas.text(442, 54, "source: cross-entropy, BerHu depth loss", size=12, color=theme.muted, anchor="start")
    canvas.arrow((790, 142), (790, 200), (270, 200), (270, 155), dashed=True)
    canvas.text(530, 194, "adversarial loss: target maps should look like source maps", size=12, color=theme.muted)


def _isl(canvas: Canvas, x: float) -> None:
    theme = canvas.theme
    canvas.panel(x, 258, 274, 216, "Stage 1: ISL", "train_isl.py")
    canvas.box(x + 18, 302, 92, 46, ["Target", "image"], theme.target)
    canvas.box(x + 148, 302, 108, 46, ["Network"], theme.plain)
    canvas.box(x + 120, 396, 136, 46, ["Pseudo labels", "where p ≥ 0.9"], theme.target)
    canvas.arrow((x + 110, 325), (x + 147, 325))
    canvas.arrow((x + 226, 348), (x + 226, 395))
    canvas.arrow((x + 176, 396), (x + 176, 349), dashed=True)
    canvas.text(x + 164, 377, "cross-entropy", size=12, color=theme.muted, anchor="end")
    canvas.text(x + 137, 462, "self-learning; labels are renewed", size=12, color=theme.muted)


def _ranking(canvas: Canvas, x: float) -> None:
    theme = canvas.theme
    canvas.panel(x, 258, 260, 216, "Stage 2a: ranking", "entropy.py")
    canvas.text(x + 130, 304, "score: mean of the depth-aware map", size=12, color=theme.muted)
    heights = [12, 15, 17, 20, 23, 26, 30, 34, 41, 54, 68, 84]
    easy = 8  # about two thirds
    for index, height in enumerate(heights):
        canvas.bar(x + 24 + 18 * index, 414, 13, height, theme.easy if index < easy else theme.hard)
    cut = x + 24 + 18 * easy - 2.5
    canvas.line(cut, 324, 422)
    canvas.text(cut - 8, 336, "λ₁ = 0.66", anchor="end")
    canvas.text((x + 24 + cut) / 2, 434, "easy")
    canvas.text((cut + x + 240) / 2, 434, "hard")
    canvas.text(x + 130, 462, "target images, ascending score", size=12, color=theme.muted)


def _ida(canvas: Canvas, x: float) -> None:
    theme = canvas.theme
    canvas.panel(x, 258, 274, 216, "Stage 2b: IDA", "train_intra.py")
    canvas.box(x + 14, 300, 116, 46, ["Easy images,", "pseudo labels"], theme.easy)
    canvas.box(x + 14, 362, 116, 34, ["Hard images"], theme.hard)
    canvas.box(x + 166, 316, 94, 56, ["Network"], theme.plain)
    canvas.box(x + 146, 404, 114, 42, ["Discriminator:", "easy or hard?"], theme.plain)
    canvas.arrow((x + 130, 323), (x + 148, 323), (x + 148, 334), (x + 165, 334))
    canvas.arrow((x + 130, 379), (x + 148, 379), (x + 148, 354), (x + 165, 354))
    canvas.arrow((x + 232, 372), (x + 232, 403))
    canvas.arrow((x + 192, 404), (x + 192, 373), dashed=True)
    canvas.text(x + 76, 422, "−p log p maps", size=12, color=theme.muted)
    canvas.text(x + 137, 464, "adversarial loss + cross-entropy (easy)", size=12, color=theme.muted)


def main(argv: Sequence[str] | None = None) -> int:
    """Write both variants; returns the exit code."""
    parser = argparse.ArgumentParser(prog="method_figure.py", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("docs"), help="folder (default: docs)")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, theme in THEMES.items():
        file = args.out / f"method-{name}.svg"
        file.write_text(draw(theme), encoding="utf-8")
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
