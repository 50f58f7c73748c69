r"""Remove markup from answers: Markdown, LaTeX for spacing and style, and typographic characters."""

from __future__ import annotations

import re

LONGEST = 2000
"""Most characters of an answer that is parsed as a number or compared as text; longer answers are prose."""

_SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys(map(ord, _SPACES), " "),
        **dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"), ""),
        **dict.fromkeys(map(ord, "\u2212\u2010\u2011\u2012\u2013\uff0d"), "-"),
        **{0xFF01 + offset: chr(0x21 + offset) for offset in range(94)},  # full width
        **dict.fromkeys(map(ord, "‘’ʼ′"), "'"),
        **dict.fromkeys(map(ord, "“”«»„"), '"'),
        ord("。"): ".",
        ord("⁄"): "/",
        ord("∕"): "/",
        ord("∶"): ":",
        ord("∙"): "·",
        ord("⋅"): "·",
        ord("✕"): "×",
        ord("✖"): "×",
        ord("º"): "°",
        ord("≃"): "≈",
        ord("≅"): "≈",
    }
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT = re.compile(r"[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_VULGAR = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
    "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8),
}  # fmt: skip
_VULGAR_SIGN = re.compile(f"[{''.join(_VULGAR)}]")

_STYLED = re.compile(
    r"\\(?:text(?:bf|rm|it|sf|tt|normal)?|math(?:bf|rm|it|sf|tt)|mbox|boldsymbol|bm|operatorname|boxed|fbox|emph)"
    r"\s*\{([^{}]*)\}"
)
_MATH = re.compile(r"\$\$(?P<display>[^$]+)\$\$|\$(?=\S)(?P<inline>[^$]*[^$\s])\$(?![0-9])")
_NAMED = {
    "times": "×", "cdot": "·", "ast": "*", "div": "÷", "approx": "≈", "simeq": "≈", "sim": "≈", "neq": "≠", "ne": "≠",
    "lt": "<", "gt": ">",
    "leq": "≤", "le": "≤", "geq": "≥", "leqslant": "≤", "geqslant": "≥", "ge": "≥",
    "pm": "±", "dots": "...", "ldots": "...", "cdots": "...",
    "degree": "°", "quad": " ", "qquad": " ", "displaystyle": " ", "textstyle": " ", "left": "", "right": "",
    "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "Longrightarrow": "⇒", "Rightarrow": "⇒",
    "implies": "⇒", "lvert": "|", "rvert": "|", "minus": "-", "infin": r"\infty",
    "angle": "angle ", "triangle": "triangle ", "pounds": "£", "euro": "€",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_ESCAPED = re.compile(r"\\([%#&_])")
_SPACING = re.compile(r"\\[,;: ]|~|\\\s")
_DEGREES = re.compile(r"\^\s*\{?\s*(?:\\circ|°)\s*\}?")
_POWER = re.compile(r"(?:(?<=[0-9)])|(?<=(?<![A-Za-z])[A-Za-z]))\*\*(?=[-+(0-9])")
_NEGATIVE_SPACE = re.compile(r"(?<=,)\\!\s*|\\!")
_EMPHASIS = re.compile(r"\*\*|__|`+")
_WRAPPED = re.compile(r"([*_\"'])(?P<inside>.+)\1|\((?P<signed>[-+][^(),;]*)\)", re.DOTALL)
_NAMES = {
    **{name: name for name in ("pi", "theta", "infty", "sin", "cos", "tan", "cot", "sec", "csc", "ln", "log")},
    "infinity": "infty", "inf": "infty", "arctan": "arctan", "arcsin": "arcsin", "arccos": "arccos",
    "alpha": "alpha", "beta": "beta",
}  # fmt: skip
_NAME = re.compile(rf"(?<![\\A-Za-z])(?:{'|'.join(sorted(_NAMES, key=len, reverse=True))})(?![A-Za-z])")
_SIGNS = {
    "π": "pi", "θ": "theta", "∞": "infty", "∪": "cup", "∩": "cap", "∈": "in", "α": "alpha", "β": "beta", "φ": "phi",
    "λ": "lambda", "ℝ": "R", "∅": "emptyset",
}  # fmt: skip
_GREEK_SIGN = re.compile(f"[{''.join(_SIGNS)}]")
_ROOT_DEGREES = {"√": "", "∛": "[3]", "∜": "[4]"}
_ROOT_SIGN = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|([0-9]+(?:\.[0-9]+)?|\\[a-z]+|[A-Za-z]))")
_CALLED_ROOT = re.compile(
    r"(?:\\?\bsqrt|\\?(?<=[0-9])sqrt|(?P<cube>\bcbrt))\s*(?:\((?P<inside>(?:[^()]|\([^()]*\))*)\)|(?P<bare>[0-9]+)(?![0-9.]))"
)
_GROUP_EXPONENT = re.compile(r"\^\s*(?:\(((?:[^()]|\([^()]*\))*)\)|([+-]?[0-9]{2,}|[+-][0-9A-Za-z]))")
DOLLAR = "¤"
r"""Replaces `\$` while the dollars that delimit mathematics are removed, and is the currency sign afterwards."""


def strip_markup(text: str) -> str:
    r"""Convert `text` to plain characters, without Markdown emphasis, mathematics delimiters, and LaTeX for style.

    `\frac` and other mathematics are kept; a dollar sign becomes `¤`. Expects at most `LONGEST` characters.
    """
    text = text.translate(_CHARACTERS)
    text = _SUPERSCRIPT.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), text)
    text = _VULGAR_SIGN.sub(lambda match: r" \frac{{{}}}{{{}}}".format(*_VULGAR[match[0]]), text)
    text = _POWER.sub("^", text)
    text = text.replace("\\$", DOLLAR).replace("{,}", ",")
    text = _NEGATIVE_SPACE.sub("", text)
    text = _MATH.sub(lambda match: match["display"] or match["inline"], text)
    # Blanks, not nothing: the words around must not grow together.
    for mark in ("\\(", "\\)", "\\[", "\\]"):
        text = text.replace(mark, " ")
    text = _EMPHASIS.sub("", _strip_styles(text).replace("**", ""))
    text = _DEGREES.sub("°", text)
    text = _SPACING.sub(" ", text)
    text = _ESCAPED.sub(r"\1", text)
    text = _COMMAND.sub(lambda match: _NAMED.get(match[1], match[0]), text)
    # Again: delimiters within a style command only match now.
    text = _strip_wrapping(_MATH.sub(lambda match: match["display"] or match["inline"], text).strip())
    return text.replace("$", DOLLAR)


def to_latex(text: str) -> str:
    r"""Convert Unicode and programming notation in mathematics without markup to LaTeX: `2*sqrt(3)`, `√3`, `x**2`."""
    text = _NAME.sub(lambda match: f"\\{_NAMES[match[0].lower()]} ", text)
    if not text.isascii():
        text = _GREEK_SIGN.sub(lambda match: f"\\{_SIGNS[match[0]]} ", text)
        text = _ROOT_SIGN.sub(lambda match: _root(match[1], match[2] or match[3] or match[4]), text)
    text = _call_roots(text.replace("**", "^"))
    text = _GROUP_EXPONENT.sub(lambda match: f"^{{{match[1] or match[2]}}}", text)
    return text.replace("*", r" \cdot ")


def _root(sign: str, inside: str) -> str:
    return rf"\sqrt{_ROOT_DEGREES[sign]}{{{inside}}}"


def _call_roots(text: str) -> str:
    r"""Rewrite `sqrt(...)` and `\sqrt(...)` with braces, from the inside out."""
    for _ in range(6):
        text, count = _CALLED_ROOT.subn(
            lambda match: rf"\sqrt{'[3]' if match['cube'] else ''}{{{match['inside'] or match['bare']}}}", text
        )
        if not count:
            break
    return text


def fold(text: str) -> str:
    """Normalize plain text for comparison: lower case, single spaces, no punctuation at the end."""
    return " ".join(text.split()).rstrip(".,;: ").casefold()


def _strip_styles(text: str) -> str:
    r"""Replace `\text{}` and other style commands by their content, from the inside out."""
    for _ in range(6):
        text, count = _STYLED.subn(r"\1", text)
        if not count:
            break
    return text


def _strip_wrapping(text: str) -> str:
    """Remove quotes and emphasis around the whole text, and brackets around a signed number."""
    for _ in range(4):
        match = _WRAPPED.fullmatch(text)
        if not match:
            break
        text = (match["inside"] or match["signed"]).strip()
    return text
