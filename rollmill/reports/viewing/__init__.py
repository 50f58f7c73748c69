"""Viewing: trajectories as people read them, in a terminal and as pages."""
