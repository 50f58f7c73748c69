"""The formats of training rows."""

from typing import Literal

Format = Literal["messages", "prompt_completion"]
