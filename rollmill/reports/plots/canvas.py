"""Figures with a background of their own, readable on light and dark pages, without the globals of `pyplot`."""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER = "#ffffff"
INK = "#1f2328"
FAINT = "#d0d7de"
MAIN = "#6aa5e3"
OTHER = "#c2500a"
GUESS = "#d6246e"
ACCEPT = "#0b5d1e"

_OTHER_SCRIPTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei"),
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Arial Unicode MS", "Unifont"),
)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, at 130 dots per inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(width, height), dpi=130, facecolor=PAPER, edgecolor=FAINT, linewidth=2, layout="constrained"
    )
    FigureCanvasAgg(figure)
    return figure


def style(axes: Axes) -> None:
    """Style axes: a plain frame, and a faint grid behind the marks."""
    axes.set_facecolor(PAPER)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="both", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def draw_note(axes: Axes, text: str) -> None:
    """Write a text in place of a plot that cannot be drawn."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=INK, fontsize=12, transform=axes.transAxes)


def plain(text: str, longest: int = 60) -> str:
    """Return text from outside as one line of limited length that matplotlib does not take for a formula."""
    text = " ".join(text.split()).encode("utf-8", "replace").decode()
    shown = text if len(text) <= longest else f"{text[: longest // 2 - 1]}...{text[-longest // 2 + 2 :]}"
    return shown.replace("$", r"\$")


def per_cent(share: float, _: object = None) -> str:
    """Return a share as the label of a tick."""
    return f"{share * 100:.4g}%"


def to_png(figure: Figure) -> bytes:
    """Return the figure as PNG bytes, with text in any script that this machine has a font for."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if not text.get_text().isascii():
            text.set_fontfamily(_families())
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a model's name may be in any script
        figure.savefig(buffer, format="png", facecolor=PAPER, edgecolor=FAINT)
    return buffer.getvalue()


@cache
def _families() -> list[str]:
    """Return matplotlib's own font, and the installed ones for other scripts."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in installed)]
