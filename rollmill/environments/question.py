"""Convert a problem's question to text for prompts."""

from __future__ import annotations

from rollmill.records import Problem


def question_text(problem: Problem) -> str:
    """Return the question as one text; messages of a chat prompt have their roles if one is the assistant's."""
    if isinstance(problem.prompt, str):
        return problem.prompt.strip()
    turns = [(str(turn["role"]), str(turn["content"]).strip()) for turn in problem.prompt]
    named = any(role == "assistant" for role, _ in turns)
    return "\n\n".join(f"{role}: {content}" if named else content for role, content in turns)


def question_fault(problem: Problem) -> str | None:
    """Return why the question cannot be shown as text, or None."""
    return "it has images, and this environment shows text alone" if problem.images else None
