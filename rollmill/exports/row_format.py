"""The formats of training rows."""

from typing import Literal

Arguments = Literal["object", "text"]
"""Form of the arguments of tool calls: objects, which most chat templates expect, or JSON text."""

Format = Literal["messages", "prompt_completion"]

TrajectoryFormat = Literal["recorded", "atif"]
"""Form of whole trajectories: as recorded, or as documents of the Agent Trajectory Interchange Format."""
