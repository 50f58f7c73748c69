"""Viewing: trajectories for people to read, in a terminal and as HTML pages."""
