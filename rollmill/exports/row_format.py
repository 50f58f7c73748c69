"""The formats of training rows."""

from typing import Literal

Arguments = Literal["object", "text"]
"""How arguments of tool calls are written: as objects, which most chat templates want, or as JSON text."""

Format = Literal["messages", "prompt_completion"]

TrajectoryFormat = Literal["recorded", "atif"]
"""How whole trajectories are written: as they were recorded, or as documents of the Agent Trajectory Interchange
Format."""
