"""Formulas: the TeX between two lines of `$$` becomes an SVG, drawn by matplotlib when the pages are built."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath

_FORMULA = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.MULTILINE | re.DOTALL)
_SIZE = 100.0
_SHOWN_EM = 1.2
_FONT = FontProperties(size=_SIZE, math_fontfamily="stix")
_COMMANDS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each formula of a page by drawings, one per line."""
    return _FORMULA.sub(lambda formula: "\n".join(map(drawn, formula[1].splitlines())), markdown)


def drawn(formula: str) -> str:
    """Return one line of TeX (matplotlib's subset) as an SVG in the colour of the text."""
    path = TextPath((0, 0), f"${formula}$", prop=_FONT)
    box = path.get_extents()
    steps = []
    for points, code in path.iter_segments(simplify=False):
        steps.append(_COMMANDS[code])
        if code != Path.CLOSEPOLY:
            pairs = zip(points[::2], points[1::2], strict=True)
            steps.append(" ".join(f"{x - box.x0:.0f} {box.y1 - y:.0f}" for x, y in pairs))
    width, height = (f"{side / _SIZE * _SHOWN_EM:.2f}em" for side in (box.width, box.height))
    return (
        f'<div class="formula"><svg role="img" aria-label="{escape(formula)}" width="{width}" height="{height}" '
        f'viewBox="-2 -2 {box.width + 4:.0f} {box.height + 4:.0f}"><path d="{"".join(steps)}"/></svg></div>\n'
    )
