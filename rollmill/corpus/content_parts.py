"""Parts of a message's content: images, reasoning, text, in the forms of OpenAI, Anthropic, Gemini and Bedrock."""

from __future__ import annotations

from typing import Any

Part = dict[str, Any]

REASONING_TYPES = frozenset({"thinking", "reasoning", "redacted_thinking", "reasoning_content"})
TEXT_TYPES = frozenset({"text", "input_text", "output_text"})
_TYPELESS_IMAGES = frozenset({"image", "image_url", "inlineData", "inline_data"})
"""Keys of images whose part has no type, as Gemini's."""
_REASONING_KEYS = (
    "thinking", "reasoning", "reasoning_content", "reasoningContent", "reasoningText", "text", "summary", "content",
)  # fmt: skip


def reasoning_text(value: Any) -> str:
    """Return reasoning as text: of a text itself, of parts and blocks in any form, a line each."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(filter(None, map(reasoning_text, value)))
    if isinstance(value, dict):
        return next((text for key in _REASONING_KEYS if (text := reasoning_text(value.get(key)))), "")
    return ""


def remove_think_block(content: str, reasoning: str) -> str:
    """Return a content without the `<think>` block at its beginning, if that repeats `reasoning`."""
    text = content.lstrip()
    if not text.startswith("<think>"):
        return content
    block, closing, answer = text.removeprefix("<think>").partition("</think>")
    return answer.lstrip("\n") if closing and block.strip() == reasoning.strip() else content


def is_image(part: Part) -> bool:
    """Return whether a part is an image, with or without a type."""
    kind = part.get("type")
    if kind is None:
        return not _TYPELESS_IMAGES.isdisjoint(part)
    return kind in ("image", "image_url", "input_image")


def image_address(part: Part) -> str | None:
    """Return the path, URL or data URI of an image's part, in any producer's form; None where it has none."""
    for key in ("image", "image_url", "url", "path"):
        value = part.get(key)
        value = (value.get("url") or value.get("path")) if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            return value
    source = part.get("source")
    for data in (source, part.get("inlineData"), part.get("inline_data"), part):
        encoded = (data.get("data") or data.get("base64")) if isinstance(data, dict) else None
        if isinstance(data, dict) and isinstance(encoded, str):
            names = ("media_type", "mime_type", "mimeType")
            kind = next((data[name] for name in names if isinstance(data.get(name), str)), "image/png")
            return f"data:{kind};base64,{encoded}"
    url = source.get("url") if isinstance(source, dict) else None
    return url if isinstance(url, str) else None
